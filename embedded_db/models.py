"""The models that the database asks: those that it was given, or its own, which are loaded when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.checkpoint.prompts import find_prompt_name
from akidb_mlx.closeable import Closeable
from akidb_mlx.embedder import Embedder
from akidb_mlx.entities.entity import Entity
from akidb_mlx.errors import ServiceClosedError
from embedded_db.records import ModelIdentity


class Extractor(Protocol):
    """Finds entities, as an `EntityExtractor` does."""

    def extract_batch(self, texts: Iterable[str]) -> list[list[Entity]]:
        """Return the entities of each text."""
        ...


_T = TypeVar("_T")


class _Lazy(Generic[_T]):
    """Something that is made when it is first asked for."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._made: _T | None = None
        self._lock = threading.Lock()
        self._closed = False

    def get(self) -> _T:
        with self._lock:
            if self._made is None and not self._closed:
                self._made = self._make()
            made = self._made
        if made is None or self._closed:
            self.close()  # which did not wait for what was being made
            raise ServiceClosedError("the database is closed, and its models with it")
        return made

    def close(self) -> None:
        """Close what was made; what is being made is closed by the thread that makes it. Waits for nothing."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            made, self._made = self._made, None
            self._lock.release()
            if isinstance(made, Closeable):
                made.close()


class Models:
    """An embedder and an extractor; those that were given are left open at the end."""

    def __init__(self, embedder: Embedder | str, extractor: Extractor | None) -> None:
        """Keep what is given; a name is that of a model to load."""
        self._own_embedder = _Lazy(lambda: _load_embedder(str(embedder)))
        self._own_extractor: _Lazy[Extractor] = _Lazy(_load_extractor)
        self._given_embedder = None if isinstance(embedder, str) else embedder
        self._given_extractor = extractor

    def embedder(self) -> Embedder:
        """Return the embedder, loaded now if need be."""
        return self._given_embedder or self._own_embedder.get()

    def extractor(self) -> Extractor:
        """Return the extractor, loaded now if need be."""
        return self._given_extractor or self._own_extractor.get()

    def given_identity(self) -> ModelIdentity | None:
        """Return the identity of an embedder that was given; None where it would have to be loaded."""
        return None if self._given_embedder is None else identity(self._given_embedder)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query."""
        embedder = self.embedder()
        vector: NDArray[np.float32] = _embed(embedder, [text], "query")[0]
        return vector

    def embed_documents(self, texts: list[str]) -> tuple[NDArray[np.float32], ModelIdentity]:
        """Return the vectors of messages, and the identity of the model."""
        embedder = self.embedder()
        return _embed(embedder, texts, "document"), identity(embedder)

    def close(self) -> None:
        """Close the models that were loaded here."""
        self._own_embedder.close()
        self._own_extractor.close()


def identity(embedder: Embedder) -> ModelIdentity:
    """Return the identity of the vectors that an embedder computes of messages."""
    info = embedder.get_model_info()
    prompt = find_prompt_name(info["prompts"], "document") or ""
    return ModelIdentity(info["model_name"], info["revision"] or "", info["dimension"], prompt)


def _embed(embedder: Embedder, texts: list[str], role: str) -> NDArray[np.float32]:
    return np.asarray(embedder.embed_array(texts, input_type=role), np.float32)


def _load_embedder(name: str) -> Embedder:
    from akidb_mlx.service import EmbeddingService

    return EmbeddingService(name)


def _load_extractor() -> Extractor:
    from akidb_mlx.entities import EntityExtractor

    return EntityExtractor()
