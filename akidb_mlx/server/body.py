"""The body of a request: read within bounds, parsed as JSON, and checked field by field."""

from __future__ import annotations

import asyncio
import reprlib
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.server.problems import RequestError

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

_TOKEN_IDS = (
    "{field} holds token ids, and this server reads texts only: set check_embedding_ctx_length=False in LangChain's "
    "OpenAIEmbeddings, or send strings"
)


class Body(BaseModel):
    """The fields of one kind of request.

    Attributes:
        harmless: the fields that are accepted and ignored, each with the reason.
    """

    # The schema is built at the first request of a kind, since building all of them delays the start.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    harmless: ClassVar[Mapping[str, str]] = {}


AnyBody = TypeVar("AnyBody", bound=Body)


async def read_body(headers: Headers, receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """Return the bytes of a request's body.

    Raises:
        RequestError: there are too many, they come too slowly, or they are compressed.
        ClientDisconnect: the client left.
    """
    if headers.get("content-encoding", "identity") != "identity":
        raise RequestError(400, "unsupported_encoding", "the body is compressed: send it as it is")
    too_large = RequestError(413, "body_too_large", f"the body has more than the {max_bytes} bytes that are accepted")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large
    content = bytearray()
    try:
        async with timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                content += message.get("body", b"")
                if len(content) > max_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(content)
    except asyncio.TimeoutError:  # which is TimeoutError from Python 3.11 on
        raise RequestError(408, "body_timeout", f"the body did not come within {timeout_s:g} s") from None


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds.

    Raises:
        RequestError: it holds something else.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # `error.doc` quotes the body; the message has the position only.
        raise RequestError(400, "invalid_json", f"the body is not valid JSON: {error.msg[:100]}") from None
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", f"the body must be a JSON object, found {_json_type(value)}")
    return value


def parse_fields(kind: type[AnyBody], fields: Mapping[str, Any]) -> AnyBody:
    """Check the fields of a request.

    Raises:
        RequestError: one is unknown, missing or not usable; it is named.
    """
    known = kind.model_fields
    for name in fields:
        if name not in known and name not in kind.harmless:
            raise RequestError(
                400,
                "unknown_field",
                f"{_shown(name)} is not a field that this server knows, and ignoring it could change the result: leave "
                f"it out; known are {', '.join(known)}",
                name[:64],
            )
    try:
        return kind.model_validate({name: value for name, value in fields.items() if name in known})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        cause = fault.get("ctx", {}).get("error")
        message = str(cause) if isinstance(cause, InvalidInputError) else _describe(place, fault["msg"], fault["input"])
        raise RequestError(400, "invalid_value", message, place or None) from None


def list_strings(field: str, value: Any) -> list[str]:
    """Return a string, or a list of strings, as a list that is not empty.

    Raises:
        InvalidInputError: it is something else; the message names the item.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InvalidInputError(f"{field} must be a string or a list of strings, found {_json_type(value)}")
    if not value:
        raise InvalidInputError(f"{field} is empty: send at least one text")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            if _is_token_ids(value):
                raise InvalidInputError(_TOKEN_IDS.format(field=field))
            raise InvalidInputError(f"{field}[{index}] must be a string, found {_json_type(item)}", index)
    return value


def _is_token_ids(value: list[Any]) -> bool:
    ids = value if not isinstance(value[0], list) else value[0]
    return bool(ids) and all(isinstance(item, int) and not isinstance(item, bool) for item in ids)


def _strings(field: str) -> Any:
    return BeforeValidator(lambda value: list_strings(field, value))


_STRINGS_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)
# The field `input`, `inputs` or `texts`: one string or several.
Input = Annotated[list[str], _strings("input"), _STRINGS_SCHEMA]
Inputs = Annotated[list[str], _strings("inputs"), _STRINGS_SCHEMA]


def _describe(place: str, problem: str, found: object) -> str:
    """Describe a value that was refused; it is not quoted, since it may be a text."""
    if problem == "Field required":
        return f"{place} is missing"
    return f"{place}: {problem[:1].lower()}{problem[1:]}, found {_json_type(found)}"


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(name: str) -> str:
    return reprlib.repr(name)
