"""The EntityExtractor and the Summarizer of a server, made when first asked for and run on threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.problems import RequestError

if TYPE_CHECKING:
    from akidb_mlx.entities import EntityExtractor
    from akidb_mlx.summarization import Summarizer

_Result = TypeVar("_Result")
_END = object()


class Facades:
    """An EntityExtractor and a Summarizer, as far as the configuration names them."""

    def __init__(self, config: ServerConfig) -> None:
        """Note what may be asked for, without loading it."""
        self._config = config
        # One thread, since either computes one call after another.
        self._entities = ThreadPoolExecutor(1, "akidb-mlx-entities")
        self._summaries = ThreadPoolExecutor(1, "akidb-mlx-summaries")

    async def extract(self, texts: list[str]) -> list[list[dict[str, Any]]]:
        """Return the entities of each text.

        Raises:
            RequestError: no model for entities is served.
            AkidbMlxError: as `EntityExtractor.extract_batch` raises.
        """
        if self._config.entities is None:
            raise RequestError(404, "model_not_found", "no entities are served here: start the server with --entities")

        def work() -> list[list[dict[str, Any]]]:
            found = self._extractor.extract_batch(texts, timeout=self._config.timeout_s)
            return [[dict(entity.to_dict()) for entity in entities] for entities in found]

        return await _run(self._entities, work)

    async def summarize(self, messages: Any, max_words: int | None) -> AsyncIterator[str]:
        """Yield the summary of messages piece by piece; one that is not waited for any more ends after its piece.

        Raises:
            RequestError: no summaries are served.
            AkidbMlxError: as `Summarizer.stream` raises.
        """
        if self._config.summaries is None:
            raise RequestError(
                404, "model_not_found", "no summaries are served here: start the server with --summaries"
            )

        def begin() -> Iterator[str]:
            from akidb_mlx.summarization.words import DEFAULT_MAX_WORDS

            words = DEFAULT_MAX_WORDS if max_words is None else max_words
            return self._summarizer.stream(messages, max_words=words, timeout=self._config.timeout_s)

        pieces = await _run(self._summaries, begin)
        try:
            while (piece := await _run(self._summaries, partial(next, pieces, _END))) is not _END:
                yield str(piece)
        finally:
            self._summaries.submit(pieces.close)  # type: ignore[attr-defined]  # it is a generator

    def close(self) -> None:
        """Free the models; calls that run are finished."""
        for pool in (self._entities, self._summaries):
            pool.shutdown(wait=False, cancel_futures=True)
        for name in ("_extractor", "_summarizer"):
            if model := self.__dict__.pop(name, None):
                model.close()

    @cached_property
    def _extractor(self) -> EntityExtractor:
        from akidb_mlx.entities import EntityExtractor

        if self._config.entities == "auto":
            # No text of a client makes this machine fetch a model.
            return EntityExtractor(language="auto", auto_download=False)
        return EntityExtractor(self._config.entities)

    @cached_property
    def _summarizer(self) -> Summarizer:
        from akidb_mlx.summarization import Summarizer

        if self._config.summaries == "extractive":
            return Summarizer(mode="extractive")
        return Summarizer(self._config.summaries, mode="abstractive")


async def _run(pool: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
