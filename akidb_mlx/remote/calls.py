"""One call: its texts in requests side by side, its answers put together, and the text at fault found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import InferenceError, InvalidInputError
from akidb_mlx.remote.answers import Answer, unit_vectors
from akidb_mlx.remote.batches import Batch, Limits, make_batches, share_tokens
from akidb_mlx.remote.embeddings import EmbeddingsApi
from akidb_mlx.vectors import Vectors

# A text that every model takes.
PROBE = "probe"


class RemoteCall:
    """The requests of one call."""

    def __init__(
        self,
        api: EmbeddingsApi,
        limits: Limits,
        texts: list[str],
        sizes: list[int],
        fields: Mapping[str, Any],
        dimension: int,
        deadline: Deadline,
    ) -> None:
        """Prepare a call.

        Args:
            api: the API.
            limits: of the API.
            texts: with their prompt.
            sizes: the estimated tokens of each.
            fields: of each request, beside its texts.
            dimension: how many values each vector must have.
            deadline: when it fails.
        """
        self._api = api
        self._fields = fields
        self._dimension = dimension
        self._deadline = deadline
        self._batches: Iterator[Batch] = make_batches(texts, sizes, limits)
        self._vectors: Vectors = np.empty((len(texts), dimension), np.float32)
        self._counts = [0] * len(texts)
        self._truncated = [False] * len(texts)
        # Whether the API takes a harmless text with these fields; None where that was not asked.
        self._fields_are_taken: bool | None = None

    async def run(self) -> tuple[Vectors, list[int], list[bool]]:
        """Return the vectors, the tokens of each text, and which were cut, once all requests are answered.

        Raises:
            AkidbMlxError: a request failed; the others are cancelled.
        """
        # No more of a call's requests wait than may run, so that a long call does not keep the others out.
        workers = [asyncio.ensure_future(self._work()) for _ in range(self._api.api.max_concurrent)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return self._vectors, self._counts, self._truncated

    async def _work(self) -> None:
        for batch in self._batches:  # which the workers share
            await self._embed(batch)

    async def _embed(self, batch: Batch) -> None:
        """Embed the texts of a batch; where the API refuses it, in halves, down to the text that is at fault."""
        try:
            answer = await self._api.ask(batch.texts, self._fields, self._dimension, self._deadline)
        except InvalidInputError as error:
            refusal = error
        except InferenceError as error:
            raise _of_call(error, batch) from error
        else:
            self._keep(batch, answer)
            return
        if not await self._takes_fields():
            raise refusal
        if len(batch.texts) == 1:
            raise InvalidInputError(f"text {batch.first}: {refusal}", batch.first)
        for half in batch.halves():
            await self._embed(half)

    async def _takes_fields(self) -> bool:
        """Return whether the API takes a harmless text, so that a refusal is the fault of the call's texts."""
        if self._fields_are_taken is None:
            try:
                await self._api.ask([PROBE], self._fields, self._dimension, self._deadline)
                self._fields_are_taken = True
            except InvalidInputError:
                self._fields_are_taken = False
        return self._fields_are_taken

    def _keep(self, batch: Batch, answer: Answer) -> None:
        place = slice(batch.first, batch.first + len(batch.texts))
        self._vectors[place] = unit_vectors(answer.vectors, batch.first)
        if answer.token_counts is not None and answer.truncated is not None:
            self._counts[place], self._truncated[place] = answer.token_counts, answer.truncated
        else:
            self._counts[place] = share_tokens(answer.tokens or 0, batch.texts)


def _of_call(error: InferenceError, batch: Batch) -> InferenceError:
    """Return an error about a text of a request with the text's index in the call."""
    if error.index is None:
        return error
    index = batch.first + error.index
    return InferenceError(str(error).replace(f"text {error.index} ", f"text {index} ", 1), index)
