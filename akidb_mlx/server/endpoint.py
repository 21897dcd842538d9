"""The record that each route of the server is, and its answers in JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from starlette.responses import Response

from akidb_mlx.server.body import Body, parse_fields
from akidb_mlx.server.problems import ErrorShape

# The header that says how many texts were cut, where an answer's JSON has no place for it.
TRUNCATED_HEADER = "x-akidb-truncated"


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Attributes:
        method: the HTTP method.
        path: the path.
        summary: a sentence for the OpenAPI document.
        error: how its clients read errors.
        answer: makes the answer from the server's state and the parsed body, or from the state alone.
        bodies: the kinds of body that it takes; none where it takes no body.
        choose: returns which of several kinds a body is, from its fields.
        is_open: whether it needs no key.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    error: ErrorShape
    answer: Callable[..., Awaitable[Response]]
    bodies: tuple[type[Body], ...] = ()
    choose: Callable[[Mapping[str, Any]], type[Body]] | None = None
    is_open: bool = False

    def parse(self, fields: Mapping[str, Any]) -> Body:
        """Check the fields of a body; see `parse_fields`."""
        return parse_fields(self.choose(fields) if self.choose else self.bodies[0], fields)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; NumPy arrays become lists of numbers, with the digits that tell their values apart."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def truncated_header(truncated: list[bool]) -> dict[str, str]:
    """Return the header that says how many texts were cut, where any were."""
    return {TRUNCATED_HEADER: str(sum(truncated))} if any(truncated) else {}
