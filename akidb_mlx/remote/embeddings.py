"""The embeddings endpoint of an API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import InferenceError
from akidb_mlx.remote.answers import Answer, parse_answer
from akidb_mlx.remote.api import Api
from akidb_mlx.remote.bounds import ENVELOPE_BYTES

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# Bytes that a value, written as a number, and a text's entry may take; and most values of a vector of unknown size.
_VALUE_BYTES, _ENTRY_BYTES, _MOST_VALUES = 32, 1024, 1 << 16


class EmbeddingsApi:
    """Asks for vectors, always of the same model.

    Attributes:
        api: the API.
        answered_by: the model's name as the API gave it first; every answer must have it.
    """

    def __init__(self, api: Api, model: str) -> None:
        self.api = api
        self.answered_by: str | None = None
        self._model = model

    async def ask(
        self, texts: Sequence[str], fields: Mapping[str, Any], dimension: int | None, deadline: Deadline
    ) -> Answer:
        """Return the answer to one request; see `Api.ask`.

        Args:
            texts: one or more.
            fields: further fields of the request.
            dimension: how many values each vector must have; None for the first request, which finds out.
            deadline: no attempt begins that could not end before it.

        Raises:
            AkidbMlxError: the API fails, or its answer is not usable.
        """

        async def send(client: AsyncOpenAI) -> bytes:
            response = await asyncio.wait_for(
                client.embeddings.with_raw_response.create(
                    model=self._model,
                    input=list(texts),
                    encoding_format="base64",
                    extra_headers=self.api.headers,
                    extra_body=dict(fields),
                ),
                self.api.request_timeout_s,
            )
            return response.http_response.content

        entry = _VALUE_BYTES * (dimension or _MOST_VALUES) + _ENTRY_BYTES
        body = await self.api.ask(send, ENVELOPE_BYTES + len(texts) * entry, deadline)
        answer = self._check(parse_answer(body, len(texts), dimension))
        self.api.last_failure = None
        return answer

    def _check(self, answer: Answer) -> Answer:
        """Refuse an answer of another model than that of the first one, whose vectors are not comparable."""
        if self.answered_by is None:
            self.answered_by = answer.model
        elif answer.model != self.answered_by:
            clean = self.api.clean
            raise InferenceError(
                f"{self.api.address} answered with the model {clean(answer.model)!r}, and before with "
                f"{clean(self.answered_by)!r}: their vectors cannot be compared; name a model that stays the same"
            )
        return answer
