"""Entities and summaries, which no other server has a protocol for; errors are OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from akidb_mlx.server.body import Body, Input
from akidb_mlx.server.calls import ServerState, check_limits
from akidb_mlx.server.endpoint import Endpoint, json_response
from akidb_mlx.server.problems import describe, openai_error


class EntitiesBody(Body):
    """The body of POST /v1/entities."""

    input: Input


class SummarizeBody(Body):
    """The body of POST /v1/summarize."""

    messages: str | list[str | dict[str, Any]]
    max_words: int | None = None
    stream: bool | None = None


async def find_entities(state: ServerState, body: EntitiesBody) -> Response:
    """Find the entities of each text."""
    check_limits(state.config, "input", body.input)
    found = await state.facades.extract(body.input)
    data = [{"object": "entities", "index": index, "entities": entities} for index, entities in enumerate(found)]
    return json_response({"object": "list", "data": data, "model": state.config.entities})


async def summarize(state: ServerState, body: SummarizeBody) -> Response:
    """Summarise messages, at once or piece by piece."""
    messages = [body.messages] if isinstance(body.messages, str) else body.messages
    check_limits(state.config, "messages", [_text(message) for message in messages])
    pieces = state.facades.summarize(messages, body.max_words)
    if not body.stream:
        summary = "".join([piece async for piece in pieces])
        return json_response({"object": "summary", "summary": summary, "model": state.config.summaries})
    first = await anext(pieces, None)  # so that what is refused has a status of its own
    return StreamingResponse(_events(first, pieces), media_type="text/event-stream")


async def _events(first: str | None, pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Yield pieces of a summary as server-sent events, and an error that comes between them."""
    try:
        if first is not None:
            yield _event({"delta": first})
        async for piece in pieces:
            yield _event({"delta": piece})
    except Exception as error:  # noqa: BLE001 - every error is described to the client
        yield _event(openai_error(describe(error)))
    else:
        yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _text(message: str | dict[str, Any]) -> str:
    """Return the text of a message, "" where it has none; the summariser refuses what is no message."""
    content = message if isinstance(message, str) else message.get("content")
    return content if isinstance(content, str) else ""


ENDPOINTS = (
    Endpoint("POST", "/v1/entities", "Find named entities.", openai_error, find_entities, (EntitiesBody,)),
    Endpoint("POST", "/v1/summarize", "Summarise messages.", openai_error, summarize, (SummarizeBody,)),
)
