"""The models that the database asks: those that it was given, or its own, which are loaded when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.closeable import Closeable
from akidb_mlx.embedder import Embedder
from akidb_mlx.entities.entity import Entity
from akidb_mlx.errors import ServiceClosedError
from embedded_db.identities import identity, named
from embedded_db.records import ModelIdentity


class Extractor(Protocol):
    """Finds entities, as an `EntityExtractor` does."""

    def extract_batch(self, texts: Iterable[str]) -> list[list[Entity]]:
        """Return the entities of each text."""
        ...


class MessageSummarizer(Protocol):
    """Summarises messages, as a `Summarizer` does."""

    def summarize(self, messages: Iterable[Any]) -> str:
        """Return a summary of records with "content" and perhaps "name"."""
        ...


_T = TypeVar("_T")


class _Source(Generic[_T]):
    """A model that was given, or one that is loaded when it is first asked for, and closed at the end."""

    def __init__(self, given: _T | None, load: Callable[[], _T], loaded: _T | None = None) -> None:
        self._given = given
        self._load = load
        self._loaded = loaded
        self._lock = threading.Lock()
        self._closed = False

    def get(self) -> _T:
        if self._given is not None:
            return self._given
        with self._lock:
            if self._loaded is None and not self._closed:
                self._loaded = self._load()
            loaded = self._loaded
        if loaded is None or self._closed:
            self.close()  # which did not wait for what was being loaded
            raise ServiceClosedError("the database is closed, and its models with it")
        return loaded

    def known(self) -> _T | None:
        """Return the model if it need not be loaded now."""
        return self._loaded if self._given is None else self._given

    def close(self) -> None:
        """Close what was loaded; what is being loaded is closed by the thread that loads it. Waits for nothing."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            loaded, self._loaded = self._loaded, None
            self._lock.release()
            if isinstance(loaded, Closeable):
                loaded.close()


class Models:
    """An embedder, an extractor and a summariser; those that were given are left open at the end."""

    def __init__(
        self, embedder: Embedder | str, extractor: Extractor | None, summarizer: MessageSummarizer | None
    ) -> None:
        """Keep what is given; a name is that of a model to load."""
        self._extractor = _Source(extractor, _load_extractor)
        self._given_summarizer = summarizer
        self._use(embedder)

    def replace_embedder(self, given: Embedder | str, embedder: Embedder) -> None:
        """Take another embedder from now on; one that was loaded here is closed, and calls that it runs fail.

        Args:
            given: what the caller gave: an embedder, which stays the caller's, or a name.
            embedder: the same, or what was loaded for the name.
        """
        old = (self._summarizer, self._embedder)
        self._use(given, embedder if isinstance(given, str) else None)
        for source in old:
            source.close()

    def embedder(self) -> Embedder:
        """Return the embedder, loaded now if need be."""
        return self._embedder.get()

    def extractor(self) -> Extractor:
        """Return the extractor, loaded now if need be."""
        return self._extractor.get()

    def summarizer(self) -> MessageSummarizer:
        """Return the summariser, loaded now if need be; one of our own shares the embedder."""
        return self._summarizer.get()

    def identity_of(self, dimension: int) -> ModelIdentity:
        """Return the identity of the embedder; where it would have to be loaded, no more than its name is known."""
        known = self._embedder.known()
        return named(self._name, dimension) if known is None else identity(known)

    def embed_query(self, text: str) -> tuple[NDArray[np.float32], ModelIdentity]:
        """Return the vector of a query, and the identity of the model."""
        embedder = self.embedder()
        vector: NDArray[np.float32] = _embed(embedder, [text], "query")[0]
        return vector, identity(embedder)

    def embed_documents(self, texts: list[str]) -> tuple[NDArray[np.float32], ModelIdentity]:
        """Return the vectors of messages, and the identity of the model."""
        embedder = self.embedder()
        return _embed(embedder, texts, "document"), identity(embedder)

    def close(self) -> None:
        """Close the models that were loaded here."""
        for source in (self._summarizer, self._extractor, self._embedder):
            source.close()

    def _use(self, embedder: Embedder | str, loaded: Embedder | None = None) -> None:
        self._name = embedder if isinstance(embedder, str) else ""
        given = None if isinstance(embedder, str) else embedder
        self._embedder = _Source(given, lambda: load_embedder(str(embedder)), loaded)
        self._summarizer: _Source[MessageSummarizer] = _Source(
            self._given_summarizer, lambda: _load_summarizer(self.embedder())
        )


def _embed(embedder: Embedder, texts: list[str], role: str) -> NDArray[np.float32]:
    return np.asarray(embedder.embed_array(texts, input_type=role), np.float32)


def load_embedder(name: str) -> Embedder:
    """Load a model by its name."""
    from akidb_mlx.service import EmbeddingService

    return EmbeddingService(name)


def _load_extractor() -> Extractor:
    from akidb_mlx.entities import EntityExtractor

    return EntityExtractor()


def _load_summarizer(embedder: Embedder) -> MessageSummarizer:
    from akidb_mlx.summarization import Summarizer

    return Summarizer(embedder=embedder)
