"""The parts of a file in the protobuf encoding, found without copying them (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST_VARINT = 10
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes are not in the encoding."""


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a message: an integer, or the bytes of anything else.

    Raises:
        MalformedError: the message is cut off, or not in the encoding.
    """
    place, size = 0, len(content)
    while place < size:
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(content, place)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        else:
            raise MalformedError(f"a field of the unknown kind {kind}")
        if length > size - place:
            raise MalformedError(f"a field of {length} bytes where {size - place} are left")
        yield number, content[place : place + length]
        place += length


def integers(value: int | memoryview) -> Iterator[int]:
    """Yield the integers of a repeated field, which are one, or packed.

    Raises:
        MalformedError: they are cut off.
    """
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = _varint(value, place)
        yield number


def signed(number: int) -> int:
    """Return the signed integer of 64 bits that an unsigned one stands for."""
    return number - (1 << 64) if number >= 1 << 63 else number


def text(value: int | memoryview) -> str:
    """Return the text of a field, in which what is not UTF-8 is replaced.

    Raises:
        MalformedError: it is an integer.
    """
    if isinstance(value, int):
        raise MalformedError("an integer where a text belongs")
    return bytes(value).decode(errors="replace")


def message(value: int | memoryview) -> memoryview:
    """Return the bytes of a field that is a message.

    Raises:
        MalformedError: it is an integer.
    """
    if isinstance(value, int):
        raise MalformedError("an integer where a message belongs")
    return value


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    for byte in content[place : place + _LONGEST_VARINT]:
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, place
        shift += 7
    raise MalformedError("an integer that is cut off or too long")
