"""Plain functions over models that all callers of this process share: what an `MlBridge` calls.

    from akidb_mlx import ml_funcs

    ml_funcs.extract_entities("Alice met Bob in Paris")

Each model is loaded by the first call that needs it, as the settings (`AKIDB_*`) say, and kept until `close()`. Every
function may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from akidb_mlx.errors import AkidbMlxError
from model_cache import ModelCacheError

if TYPE_CHECKING:
    from akidb_mlx.entities import EntityExtractor
    from akidb_mlx.entities.entity import EntityDict
    from akidb_mlx.service import EmbeddingService
    from akidb_mlx.summarization import Summarizer

logger = logging.getLogger(__name__)

_EMBEDDING_MODEL = "minilm-l6-v2"


class _Closable(Protocol):
    def close(self) -> None: ...


_Provider = TypeVar("_Provider", bound=_Closable)


class _Shared(Generic[_Provider]):
    """A provider that is made when it is first needed; one that cannot be made is tried again by the next call."""

    def __init__(self, make: Callable[[], _Provider]) -> None:
        self._make = make
        self._made: _Provider | None = None
        self._lock = threading.Lock()

    def get(self) -> _Provider:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


def _make_embedder() -> EmbeddingService:
    from akidb_mlx.service import EmbeddingService

    return EmbeddingService(_EMBEDDING_MODEL)


def _make_extractor() -> EntityExtractor:
    from akidb_mlx.entities import EntityExtractor

    return EntityExtractor()


def _make_summarizer() -> Summarizer:
    from akidb_mlx.summarization import Summarizer

    return Summarizer(embedder=_embedder.get())


_embedder = _Shared(_make_embedder)
_extractor = _Shared(_make_extractor)
_summarizer = _Shared(_make_summarizer)


def generate_embedding(text: str) -> list[float]:
    """The vector of a text: 384 values of all-MiniLM-L6-v2, of unit length; see `EmbeddingService.embed`."""
    return generate_embeddings_batch([text])[0]


def generate_embeddings_batch(texts: Iterable[str]) -> list[list[float]]:
    """One vector for each text, in order; see `generate_embedding`."""
    return _embedder.get().embed(texts)


def extract_entities(text: str) -> list[EntityDict]:
    """The named entities of a text, in order, as dictionaries of `text`, `label`, `start` and `end`.

    `text[start:end]` is the entity, in characters. The model is `AKIDB_NER_MODEL`, or that of `AKIDB_NER_LANGUAGE`;
    see `EntityExtractor`.
    """
    return [entity.to_dict() for entity in _extractor.get().extract(text)]


def summarize(messages: Iterable[Any]) -> str:
    """A summary of messages, strings or records with `role` and `content`; "" where they hold nothing.

    Sentences of the messages, or a text written by the model that `AKIDB_SUMMARY_MODEL` names; see `Summarizer`.
    """
    return _summarizer.get().summarize(messages)


def health_check() -> bool:
    """Whether a tiny call of each function whose packages are installed succeeds; loads their models if need be."""
    calls: list[Callable[[], object]] = [lambda: generate_embedding("Is anybody there?")]
    if find_spec("spacy"):
        calls.append(lambda: extract_entities("Alice met Bob in Paris"))
    if find_spec("sentencex"):
        calls.append(lambda: summarize(["Alice met Bob in Paris."]))
    for call in calls:
        try:
            call()
        except (AkidbMlxError, ModelCacheError) as error:
            logger.warning("the health check failed: %s", error)
            return False
    return True


def close() -> None:
    """Free what was loaded; the next call loads it again. A host that never finalises Python should call it."""
    for shared in (_summarizer, _extractor, _embedder):
        shared.close()
