"""The checks of everything that callers pass: ids, properties, vectors and numbers."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db.errors import DatabaseError, InvalidRecordError, excerpt
from embedded_db.records import CHAT, Node

# A book has a million characters. SQLite reads a whole row to change any of it.
MAX_BYTES = 16 << 20
_MAX_ID = 512
_MAX_DEPTH = 64
RESERVED = ("id", "type", "created_at", "properties")


def parse_text(name: str, value: object, kind: type[DatabaseError] = InvalidRecordError) -> str:
    """Return a string once it is known to be text that a database can hold."""
    if not isinstance(value, str):
        raise kind(f"{name} must be a string, found {excerpt(value)}")
    if "\0" in value:
        raise kind(f"{name} holds a NUL at character {value.index(chr(0))}, which is not text: remove it")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise kind(
                f"{name} holds a lone surrogate, U+{ord(value[error.start]):04X} at character {error.start}, which is "
                "not text: decode its source with the right encoding or errors='replace'"
            ) from error
    if size > MAX_BYTES:
        raise kind(f"{name} has {size} bytes, and at most {MAX_BYTES} are kept: store it in parts")
    return value


def parse_name(name: str, value: object, kind: type[DatabaseError] = InvalidRecordError) -> str:
    """Return an id or a type: a string that is not empty and not long."""
    text = parse_text(name, value, kind)
    if not 0 < len(text) <= _MAX_ID:
        raise kind(f"{name} must have 1 to {_MAX_ID} characters, found {len(text)}")
    return text


def parse_integer(name: str, value: object, least: int, kind: type[DatabaseError]) -> int:
    """Return an integer that is not below the least one allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise kind(f"{name} must be an integer of {least} or more, found {excerpt(value)}")
    # SQLite counts in 64 bits.
    return min(int(value), 2**63 - 1)


def parse_number(name: str, value: object, kind: type[DatabaseError] = InvalidRecordError) -> float:
    """Return a finite number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise kind(f"{name} must be a number, found {excerpt(value)}")
    try:
        number = float(value)
    except (OverflowError, TypeError) as error:
        raise kind(f"{name} must be a finite number, found {excerpt(value)}") from error
    if not math.isfinite(number):
        raise kind(f"{name} must be a finite number, found {number}")
    return number


def parse_node(given: Mapping[str, Any]) -> Node:
    """Return a node of its type and properties; an id and the time are added where they are missing."""
    if not isinstance(given, Mapping):
        raise InvalidRecordError(f"a node must be a dictionary with a type, found {excerpt(given)}")
    if "type" not in given:
        raise InvalidRecordError("a node needs a type, as in {'type': 'Message', 'content': …}")
    if given["type"] == CHAT and given.get("chat_id") is not None:
        raise InvalidRecordError("a Chat belongs to no chat: leave chat_id out")
    created_at = given.get("created_at")
    return Node(
        id=new_id() if given.get("id") is None else parse_name("the node's id", given["id"]),
        type=parse_name("the node's type", given["type"]),
        created_at=time.time() if created_at is None else parse_number("created_at", created_at),
        properties=parse_properties({name: value for name, value in given.items() if name not in RESERVED[:3]}),
    )


def parse_properties(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of properties, as JSON holds them; those that are None are left out.

    Raises:
        InvalidRecordError: a name or a value is not usable; the message names it.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidRecordError(f"properties must be a dictionary, found {excerpt(given)}")
    for name in given:
        parse_name("the name of a property", name)
        if name in RESERVED or name.startswith("__"):
            raise InvalidRecordError(f"{name!r} cannot be a property: {', '.join(RESERVED)} and __names are taken")
        if not is_property_name(name):
            raise InvalidRecordError(
                f"the name of a property has no dot, quote, backslash or control character, so that filters can name "
                f"it, found {excerpt(name)}"
            )
    for name in ("chat_id", "content"):
        if given.get(name) is not None:
            parse_text(name, given[name])
    properties = {name: _parse_json(name, value, 1) for name, value in given.items() if value is not None}
    _check_size(properties)
    return properties


def merge_properties(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored properties after changes, of which those that are None remove one; see `parse_properties`."""
    changed = parse_properties(changes)
    merged = {name: value for name, value in stored.items() if name not in changes} | changed
    _check_size(merged)
    return merged


def is_property_name(name: str) -> bool:
    """Return whether a filter can name a property."""
    return bool(name) and not any(character in '."\\' or character < " " for character in name)


def _check_size(properties: Mapping[str, Any]) -> None:
    size = len(dump(properties).encode())
    if size > 2 * MAX_BYTES:
        raise InvalidRecordError(f"the properties have {size} bytes together: store them in several nodes")


def _parse_json(name: str, value: object, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise InvalidRecordError(f"{name} is nested more than {_MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_text(name, value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidRecordError(f"{name} must be an integer of 64 bits, found {excerpt(value)}")
        return int(value)
    if isinstance(value, float):
        return parse_number(name, value)
    if isinstance(value, (list, tuple)):
        return [_parse_json(f"{name}[{index}]", item, depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            parse_text(f"a key of {name}", key): _parse_json(f"{name}.{key}", item, depth + 1)
            for key, item in value.items()
        }
    raise InvalidRecordError(
        f"{name} must be a string, number, boolean, list, dictionary or None, found {excerpt(value)}"
    )


def parse_vector(given: object, kind: type[DatabaseError] = InvalidRecordError) -> NDArray[np.float32]:
    """Return a vector as float32, once it is known to be finite and to have a direction."""
    try:
        found = np.asarray(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise kind(f"a vector must be a list of numbers, found {excerpt(given)} ({error})") from error
    if found.dtype.kind not in "iuf":
        raise kind(f"a vector must be a list of numbers, found {excerpt(given)} of the type {found.dtype}")
    wide = found.astype(np.float64)
    if wide.ndim != 1 or not wide.size:
        raise kind(f"a vector must have one dimension and at least one value, found shape {wide.shape}")
    with np.errstate(over="ignore"):
        vector = wide.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(vector))
    if wrong.size:
        raise kind(f"value {wrong[0]} of the vector must be a finite float32, found {wide[wrong[0]]}")
    if not vector.any():
        raise kind("all values of the vector are 0, so it has no direction to compare")
    return vector


def new_id() -> str:
    """Return an id that no other node or edge has."""
    return uuid.uuid4().hex


def dump(properties: Any) -> str:
    """Return properties as they are stored."""
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
