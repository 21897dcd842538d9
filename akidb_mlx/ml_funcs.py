"""Plain functions over models that all callers of this process share, as an `MlBridge` calls them.

    from akidb_mlx import ml_funcs

    ml_funcs.extract_entities("Alice met Bob in Paris")

Each model is loaded by the first call that needs it, as the settings (`AKIDB_*`) say, and kept until `close()`. If it
fails for good, the next call replaces it. Every function may be called from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from akidb_mlx.runtime.locks import ExclusiveLock

if TYPE_CHECKING:
    from akidb_mlx.entities import EntityExtractor
    from akidb_mlx.entities.entity import EntityDict
    from akidb_mlx.service import EmbeddingService
    from akidb_mlx.summarization import Summarizer

logger = logging.getLogger(__name__)

_EMBEDDING_MODEL = "minilm-l6-v2"


class _Facade(Protocol):
    def get_model_info(self) -> Mapping[str, Any]: ...

    def close(self) -> None: ...


_FacadeT = TypeVar("_FacadeT", bound=_Facade)


class _Shared(Generic[_FacadeT]):
    """A facade that is made when it is first needed, and again when it has ended or could not be made."""

    def __init__(self, make: Callable[[], _FacadeT]) -> None:
        self._make = make
        self._made: _FacadeT | None = None
        self._lock = ExclusiveLock()

    def get(self) -> _FacadeT:
        """Return the facade, made now if need be.

        Raises:
            ReentrantCallError: a signal handler or a finalizer interrupted this function on the same thread.
        """
        with self._lock:
            if self._made is not None and self._made.get_model_info()["status"] in ("closed", "failed"):
                ended, self._made = self._made, None
                ended.close()
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        """Close the facade, if there is one; the next `get` makes another."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()


def _make_embedder() -> EmbeddingService:
    from akidb_mlx.service import EmbeddingService
    from akidb_mlx.settings import load_settings

    return EmbeddingService(_EMBEDDING_MODEL, settings=load_settings().without_dimensions())


def _make_extractor() -> EntityExtractor:
    from akidb_mlx.entities import EntityExtractor

    return EntityExtractor()


def _make_summarizer() -> Summarizer:
    from akidb_mlx.settings import load_settings
    from akidb_mlx.summarization.summarizer import Summarizer, choose_mode

    settings = load_settings()
    mode, _ = choose_mode(None, None, settings)
    return Summarizer(embedder=_embedder.get() if mode == "extractive" else None, settings=settings)


_embedder = _Shared(_make_embedder)
_extractor = _Shared(_make_extractor)
_summarizer = _Shared(_make_summarizer)


def generate_embedding(text: str) -> list[float]:
    """Return the vector of a text: 384 values of all-MiniLM-L6-v2, of unit length; see `EmbeddingService.embed`."""
    return generate_embeddings_batch([text])[0]


def generate_embeddings_batch(texts: Iterable[str]) -> list[list[float]]:
    """Return one vector for each text, in order; see `generate_embedding`."""
    return _embedder.get().embed(texts)


def extract_entities(text: str) -> list[EntityDict]:
    """Return the named entities of a text, in order, as dictionaries of `text`, `label`, `start` and `end`.

    `text[start:end]` is the entity, in characters. The model is `AKIDB_NER_MODEL`, or that of `AKIDB_NER_LANGUAGE`;
    see `EntityExtractor`.
    """
    return [entity.to_dict() for entity in _extractor.get().extract(text)]


def summarize(messages: Iterable[Any]) -> str:
    """Return a summary of messages, strings or records with `role` and `content`; "" where they hold nothing.

    It consists of sentences of the messages, or is written by the model that `AKIDB_SUMMARY_MODEL` names; see
    `Summarizer`.
    """
    return _summarizer.get().summarize(messages)


def health_check() -> bool:
    """Try a tiny call of each function whose packages are installed, loading their models if need be.

    Returns:
        Whether all succeeded. Whatever goes wrong is logged and gives False; only Ctrl-C and `SystemExit` are raised.
    """
    try:
        generate_embedding("Is anybody there?")
        if find_spec("spacy"):
            extract_entities("Alice met Bob in Paris")
        if find_spec("sentencex"):
            summarize(["Alice met Bob in Paris."])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a native panic is no Exception
        logger.warning("the health check failed: %s: %s", type(error).__name__, error, exc_info=True)
        return False
    return True


def close() -> None:
    """Free all models; the next call loads them again. A host that never finalises Python should call it."""
    for shared in (_summarizer, _extractor, _embedder):
        shared.close()
