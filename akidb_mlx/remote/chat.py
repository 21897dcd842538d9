"""The chat completions of an API: one message, and the answer piece by piece as it is written."""

from __future__ import annotations

import asyncio
import json
import reprlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import InferenceError, RemoteServiceError
from akidb_mlx.remote.api import Api
from akidb_mlx.remote.bounds import ENVELOPE_BYTES

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# Bytes that the event of one token may take.
_EVENT_BYTES = 2048
_DATA, _DONE = "data:", "[DONE]"


class ChatApi:
    """Asks a model for answers.

    Attributes:
        api: the API.
    """

    def __init__(self, api: Api, model: str) -> None:
        self.api = api
        self._model = model

    async def write(self, content: str, max_tokens: int, emit: Callable[[str], bool], deadline: Deadline) -> bool:
        """Ask for the answer to a message; see `Api.ask`. It is asked for again until its first piece has come.

        Args:
            content: the message of the user.
            max_tokens: most tokens of the answer.
            emit: takes the answer piece by piece, and returns whether to go on.
            deadline: no attempt begins that could not end before it.

        Returns:
            Whether the model ended the answer by itself, so neither `max_tokens` nor `emit` did.

        Raises:
            AkidbMlxError: the API fails, or its answer is not usable.
        """
        begun = False

        async def send(client: AsyncOpenAI) -> bool:
            nonlocal begun
            reason: str | None = None
            async with aclosing(self._events(client, content, max_tokens)) as events:
                async for piece, found in events:
                    reason = found or reason
                    begun = begun or bool(piece)
                    if piece and not emit(piece):
                        return False
            return reason == "stop"

        limit = ENVELOPE_BYTES + max_tokens * _EVENT_BYTES
        ended_itself = await self.api.ask(send, limit, deadline, may_retry=lambda: not begun)
        self.api.last_failure = None
        return ended_itself

    async def _events(
        self, client: AsyncOpenAI, content: str, max_tokens: int
    ) -> AsyncGenerator[tuple[str, str | None], None]:
        """Yield the pieces of one answer, each with the reason for which the answer has ended, if it has."""
        # OpenAI's newest models know the second only and take no temperature; other servers may know the first only.
        limits: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
        if self.api.is_openai:
            limits = {"max_completion_tokens": max_tokens}
        asked = client.chat.completions.with_streaming_response.create(
            model=self._model,
            messages=[{"role": "user", "content": content}],
            stream=True,
            extra_headers=self.api.headers,
            **limits,
        )
        timeout, has_ended = self.api.request_timeout_s, False
        async with AsyncExitStack() as resources:
            response = await asyncio.wait_for(resources.enter_async_context(asked), timeout)
            lines = response.iter_lines()
            while (line := await asyncio.wait_for(anext(lines, None), timeout)) is not None:
                if not line.startswith(_DATA):
                    continue  # a comment that keeps the connection, or a field that says nothing about the answer
                data = line.removeprefix(_DATA).strip()
                if data == _DONE:
                    has_ended = True
                    break
                piece, reason = self._parse(data)
                has_ended = has_ended or reason is not None
                yield piece, reason
        if not has_ended:
            raise RemoteServiceError(f"{self.api.address} ended its answer before the model had; retry")

    def _parse(self, data: str) -> tuple[str, str | None]:
        """Return the text of an event, and why the answer has ended with it, None where it has not.

        Raises:
            InferenceError: it is not an event of a chat completion.
            RemoteServiceError: it reports a failure.
        """
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InferenceError(f"the API's answer has an event that is not JSON ({len(data)} characters)") from error
        if isinstance(event, dict) and (failure := event.get("error")):
            message = failure.get("message") if isinstance(failure, dict) else failure
            raise RemoteServiceError(f"{self.api.address} failed while it answered: {self.api.clean(message)}")
        choices = event.get("choices") if isinstance(event, dict) else None
        if choices == []:  # the event of the tokens that were used
            return "", None
        choice = choices[0] if isinstance(choices, list) else None
        delta = choice.get("delta") if isinstance(choice, dict) else None
        content = delta.get("content") if isinstance(delta, dict) else None
        reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        if not isinstance(delta, dict) or not isinstance(content, str | None) or not isinstance(reason, str | None):
            raise InferenceError(
                f"the API's answer has an event without the text of a choice, found {reprlib.repr(event)}"
            )
        return content or "", reason
