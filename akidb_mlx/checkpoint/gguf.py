"""The header of a GGUF file, read strictly before llama.cpp sees the file: it trusts what it reads.

The format is little-endian: "GGUF", a version, the numbers of tensors and of entries; the entries, each a key, a type
and a value; then for each tensor its name, shape, type and place. The tensors' data follow, aligned.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ModelLoadError

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
# Bounds far above those of any model, so that a damaged number neither takes memory nor time.
_MOST_ENTRIES, _MOST_TENSORS, _MOST_ELEMENTS = 4096, 1 << 16, 1 << 21
_LONGEST_KEY, _LONGEST_STRING, _LONGEST_HEADER = 1 << 10, 1 << 24, 1 << 28
_MOST_AXES, _LARGEST_AXIS = 4, 1 << 40
_ALIGNMENT, _LARGEST_ALIGNMENT = 32, 1 << 16

# The types of values by number, as struct has them.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# The types of tensors by number: name, values in a block, bytes of a block.
_TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
# The vocabulary, which llama.cpp ends the process for where two of its tokens are equal.
TOKENS = "tokenizer.ggml.tokens"
_PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class ArrayEntry:
    """An array in the metadata, whose values are not kept; `kind` is the number of their type."""

    length: int
    kind: int


@dataclass(frozen=True)
class GgufHeader:
    """The description of a model in a GGUF file.

    Attributes:
        file: the file.
        metadata: the entries by key: strings, numbers, or arrays without their values.
        type_bytes: the bytes of all tensors of each type.
        tensors: the names of all tensors.
    """

    file: Path
    metadata: Mapping[str, Any]
    type_bytes: Mapping[str, int]
    tensors: frozenset[str]

    @property
    def architecture(self) -> str:
        """Return llama.cpp's name of the architecture."""
        return self.string("general.architecture")

    @property
    def quantization(self) -> str | None:
        """Return the packed type of most weights; None where none are packed."""
        packed = {name: size for name, size in self.type_bytes.items() if name not in _PLAIN}
        return max(packed, key=packed.__getitem__) if packed else None

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(self.type_bytes.values())

    def string(self, key: str) -> str:
        """Return an entry that must be a string.

        Raises:
            ModelLoadError: it is missing, or something else.
        """
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise ModelLoadError(f"{self.file}: {key} must be a string, found {_shown(value)}")
        return value

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return an entry that must be an integer within bounds; `default` where there is none.

        Raises:
            ModelLoadError: it is missing, or something else.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ModelLoadError(f"{self.file}: {key} must be an integer from {least} to {most}, found {_shown(value)}")
        return value

    def array(self, key: str) -> ArrayEntry:
        """Return an entry that must be an array.

        Raises:
            ModelLoadError: it is missing, or something else.
        """
        value = self.metadata.get(key)
        if not isinstance(value, ArrayEntry):
            raise ModelLoadError(f"{self.file}: {key} must be a list, found {_shown(value)}")
        return value


def read_header(file: Path) -> GgufHeader:
    """Read the header of a GGUF file, and check that all of its tensors lie in the file.

    Raises:
        ModelLoadError: it cannot be read, is no GGUF file, is cut off or damaged.
    """
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(file, content).read()
    except (OSError, ValueError) as error:  # of an empty file, too
        raise ModelLoadError(f"{file} cannot be read as a GGUF file: {error}") from error


class _Reader:
    """A position in a file."""

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        self._file = file
        self._content = content
        self._end = min(len(content), _LONGEST_HEADER)
        self._at = 0

    def read(self) -> GgufHeader:
        if (magic := self._take(4)) != _MAGIC:
            raise self._error(f"it begins with {magic!r}, and not with {_MAGIC!r}")
        if (version := self._number("I")) not in _VERSIONS:
            raise self._error(f"its version is {version}, and {' and '.join(map(str, _VERSIONS))} are supported")
        tensors = self._count("tensors", _MOST_TENSORS)
        metadata = self._metadata(self._count("entries", _MOST_ENTRIES))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise self._error(f"general.alignment is {_shown(alignment)}")
        return GgufHeader(self._file, metadata, *self._tensors(tensors, alignment))

    def _metadata(self, entries: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self._string("a key", _LONGEST_KEY)
            if key in metadata:
                raise self._error(f"it has two entries {key[:80]!r}")
            metadata[key] = self._value(key)
        return metadata

    def _value(self, key: str) -> Any:
        kind = self._number("I")
        if kind == _STRING:
            return self._string(key[:80], _LONGEST_STRING)
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self._error(f"the entry {key[:80]!r} has the type {kind}, which is not known")
        kind, length = self._number("I"), self._count(f"values of {key[:80]!r}", _MOST_ELEMENTS)
        if kind == _STRING:
            self._skip_strings(length, distinct=key == TOKENS)
        elif kind in _NUMBERS:
            self._skip(length * struct.calcsize(_NUMBERS[kind]))
        else:
            raise self._error(f"the entry {key[:80]!r} is a list of the type {kind}, which is not known")
        return ArrayEntry(length, kind)

    def _tensors(self, count: int, alignment: int) -> tuple[dict[str, int], frozenset[str]]:
        """Return the bytes of each type and the names, once all tensors are known to lie in the file."""
        names: set[str] = set()
        sizes: dict[str, int] = {}
        places: list[tuple[str, int, int]] = []
        for _ in range(count):
            name = self._string("a tensor's name", _LONGEST_KEY)
            if name in names:
                raise self._error(f"it has two tensors {name[:80]!r}")
            names.add(name)
            shape = [self._number("Q") for _ in range(self._count(f"axes of {name[:80]!r}", _MOST_AXES, "I"))]
            kind, offset = self._number("I"), self._number("Q")
            if not shape or not all(0 < axis <= _LARGEST_AXIS for axis in shape):
                raise self._error(f"the tensor {name[:80]!r} has the impossible shape {_shown(shape)}")
            if kind not in _TENSOR_TYPES:
                raise self._error(f"the tensor {name[:80]!r} has the type {kind}, which is not known")
            kind_name, block, block_bytes = _TENSOR_TYPES[kind]
            if shape[0] % block:
                raise self._error(f"rows of the tensor {name[:80]!r} have {shape[0]} values, no multiple of {block}")
            if offset % alignment:
                raise self._error(f"the tensor {name[:80]!r} begins at {offset}, no multiple of {alignment}")
            size = prod(shape) // block * block_bytes
            sizes[kind_name] = sizes.get(kind_name, 0) + size
            places.append((name, offset, size))
        begin = -(-self._at // alignment) * alignment
        for name, offset, size in places:
            if begin + offset + size > len(self._content):
                raise self._error(
                    f"the tensor {name[:80]!r} ends at {begin + offset + size}, beyond the file's {len(self._content)} "
                    "bytes: the file is cut off or damaged"
                )
        return sizes, frozenset(names)

    def _count(self, what: str, most: int, kind: str = "Q") -> int:
        count: int = self._number(kind)
        if count > most:
            raise self._error(f"it has {count} {what}, more than {most}")
        return count

    def _number(self, kind: str) -> Any:
        size = struct.calcsize(f"<{kind}")
        return struct.unpack(f"<{kind}", self._take(size))[0]

    def _string(self, what: str, longest: int) -> str:
        content = self._take(self._count(f"bytes of {what}", longest))
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise self._error(f"{what} is not UTF-8") from error

    def _take(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._content[start : self._at]

    def _skip(self, size: int) -> None:
        if self._at + size > self._end:
            where = "is cut off" if self._end == len(self._content) else f"has more than {self._end} bytes"
            raise self._error(f"its header {where}")
        self._at += size

    def _skip_strings(self, count: int, distinct: bool) -> None:
        """Pass over strings, of which a vocabulary has half a million.

        Raises:
            ModelLoadError: they do not end in the header, or two are equal that must be distinct.
        """
        content, at, last = self._content, self._at, self._end - 8
        unpack = struct.Struct("<Q").unpack_from
        seen: set[bytes] = set()
        empty = 0
        for _ in range(count):
            if at > last:
                at = self._end + 1
                break
            start = at + 8
            at = start + unpack(content, at)[0]
            if distinct and start < at <= self._end:
                seen.add(content[start:at])
            empty += start == at
        self._skip(at - self._at)
        if distinct and len(seen) + empty < count:
            raise self._error("two of its tokens are equal")

    def _error(self, fault: str) -> ModelLoadError:
        return ModelLoadError(f"{self._file} is no GGUF file that can be used: {fault}")


def _shown(value: object) -> str:
    """Return a value that was found, cut."""
    return "none" if value is None else repr(value)[:80]
