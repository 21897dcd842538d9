"""The JSON text of a selector, bounded in size, parts and depth, with each key once."""

from __future__ import annotations

import json
import re
import reprlib
from numbers import Integral
from typing import Any

from pydantic_core import from_json

from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.options import is_number, shown

# Bytes of a file, unless the caller says otherwise: a KNN of 10 000 examples of 1 038 values has 200 MB.
MAX_BYTES = 512 << 20
# A list, an object or a string takes up to 100 bytes of memory and as little as 2 of a file. So a file may have one
# part for so many bytes that may be read, and always the fewest: opening brackets, braces and quotation marks, and
# commas outside strings and lists of numbers. The crate counts them in the same way.
_BYTES_OF_A_PART, _FEWEST_PARTS = 64, 10_000
# Objects and lists inside each other, the selector itself not counted; the formats need four.
MAX_DEPTH = 64
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_STRINGS_AND_NUMBERS = re.compile(_STRING + rb"|\[[-+0-9.eE, \t\r\n]*\]", re.DOTALL)


def parse(text: str | bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object in a JSON text.

    Args:
        text: JSON, as bytes in UTF-8.
        max_bytes: how long it may be. Reading takes at most 16 times as much memory.

    Raises:
        ModelLoadError: it is longer, has too many parts, is not JSON, has a key twice or a number that is not finite,
            is nested too deeply, or is no object.
        InvalidInputError: it is no text at all, or the limit is no positive integer.
    """
    check_limit(max_bytes)
    if not isinstance(text, (str, bytes)):
        raise InvalidInputError(f"a selector's JSON must be a string or bytes, found {type(text).__name__}")
    try:
        content = text.encode() if isinstance(text, str) else text
        check_size(len(content), max_bytes)
        marks = sum(map(content.count, (b"[", b"{", b'"')))
        _check_parts(marks, max_bytes)
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        deep = "recursion limit" in str(error)
        raise too_deep() if deep else ModelLoadError(f"the selector is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"a selector must be a JSON object, found {kind_of(found)}")
    short = _STRINGS_AND_NUMBERS.sub(_without_numbers, content)
    _check_parts(marks + _STRINGS.sub(b"", short).count(b","), max_bytes)
    _check_keys(short)
    return found


def check_limit(max_bytes: int) -> None:
    """Refuse a limit on bytes that is none.

    Raises:
        InvalidInputError: it is no integer of 1 or more.
    """
    if not is_number(max_bytes, Integral) or max_bytes < 1:
        raise InvalidInputError(f"max_bytes must be an integer of 1 or more, found {shown(max_bytes)}")


def check_size(size: int, max_bytes: int) -> None:
    """Refuse JSON that is too long.

    Raises:
        ModelLoadError: it has more than `max_bytes`.
    """
    if size > max_bytes:
        raise ModelLoadError(f"the selector has {size} bytes, and at most {max_bytes} are read: raise max_bytes")


def _check_parts(found: int, max_bytes: int) -> None:
    limit = max(_FEWEST_PARTS, max_bytes // _BYTES_OF_A_PART)
    if found > limit:
        raise ModelLoadError(
            f"the selector has more than {limit} lists, objects, strings and other values: raise max_bytes"
        )


def _without_numbers(found: re.Match[bytes]) -> bytes:
    """Return a string as it is, and 0 for a list of numbers."""
    return found[0] if found[0].startswith(b'"') else b"0"


def _check_keys(short: bytes) -> None:
    """Refuse an object with a key twice, of which pydantic's reader, six times as fast as json's, takes the last.

    json's reader sees the text without its lists of numbers, which is short. It decodes the keys, so one that is
    written in two ways is seen too.

    Raises:
        ModelLoadError: there is one.
    """
    json.loads(short, object_pairs_hook=_refuse_twice)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ModelLoadError(f"the selector has the field {reprlib.repr(key)} twice in one object")
        seen.add(key)


def too_deep() -> ModelLoadError:
    """Return the error of a text that is nested too deeply."""
    return ModelLoadError(f"the selector is nested more than {MAX_DEPTH} levels deep")


def kind_of(value: Any) -> str:
    """Return the kind of a value of JSON, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
