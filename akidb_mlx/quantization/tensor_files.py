"""Safetensors files that are read and written in parts, so that no tensor is in memory as a whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import ModelLoadError
from model_cache.files import sync

# By the names of types in a file: NumPy's type of the same bytes, and MLX's type.
_FLOATS: Mapping[str, tuple[str, mx.Dtype]] = {
    "F32": ("<f4", mx.float32),
    "F16": ("<f2", mx.float16),
    "BF16": ("<u2", mx.bfloat16),
}
_NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_COPIED_BYTES = 1 << 22


@dataclass(frozen=True)
class Entry:
    """A tensor in the header of a file: its type, its shape, and the place of its bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorReader:
    """Reads a file that was checked by its header before."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        self._data = 8 + length
        header.pop("__metadata__", None)
        self.entries = {
            name: Entry(one["dtype"], tuple(one["shape"]), *one["data_offsets"]) for name, one in header.items()
        }

    def rows(self, name: str, first: int, last: int) -> mx.array:
        """Return some rows of a matrix of floating numbers."""
        entry = self.entries[name]
        stored, dtype = _FLOATS[entry.dtype]
        columns = entry.shape[1]
        size = np.dtype(stored).itemsize
        self._file.seek(self._data + entry.start + first * columns * size)
        numbers = np.frombuffer(self._read((last - first) * columns * size), stored).reshape(last - first, columns)
        array = mx.array(numbers)
        return array.view(mx.bfloat16) if dtype == mx.bfloat16 else array

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a tensor."""
        entry = self.entries[name]
        for place in range(entry.start, entry.stop, _COPIED_BYTES):
            self._file.seek(self._data + place)
            yield self._read(min(_COPIED_BYTES, entry.stop - place))

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ModelLoadError(f"{self._path} ends before its tensors do; fetch the model again")
        return content


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorReader]:
    """Open a file to read it."""
    with path.open("rb") as file:
        yield TensorReader(file, path)


class TensorWriter:
    """Writes the tensors of a new file, each from its beginning on, in any order."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
        """Write the header.

        Args:
            file: a new file.
            tensors: the type and the shape of each tensor by its name.
        """
        self._file = file
        sizes = {name: tensor_bytes(dtype, shape) for name, (dtype, shape) in tensors.items()}
        # Wide types first, so that every tensor lies where its type may be mapped into memory.
        order = sorted(tensors, key=lambda name: (-_SIZES.get(tensors[name][0], 1), name))
        header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        place = 0
        self._places = {}
        for name in order:
            dtype, shape = tensors[name]
            self._places[name] = place
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + sizes[name]]}
            place += sizes[name]
        content = json.dumps(header).encode()
        content += b" " * (-len(content) % 8)
        file.write(len(content).to_bytes(8, "little") + content)
        self._data = 8 + len(content)

    def append(self, name: str, content: bytes | NDArray[Any]) -> None:
        """Write the next bytes of a tensor."""
        data = memoryview(content).cast("B") if isinstance(content, bytes) else memoryview(content.view(np.uint8).data)
        self._file.seek(self._data + self._places[name])
        self._file.write(data)
        self._places[name] += data.nbytes


@contextmanager
def create_tensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> Iterator[TensorWriter]:
    """Create a file of those tensors, which is on the disk when the block has ended."""
    with path.open("xb") as file:
        yield TensorWriter(file, tensors)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor; types that are not named here have one byte."""
    return math.prod(shape) * _SIZES.get(dtype, 1)


def type_name(dtype: mx.Dtype) -> str:
    """Return the name of a type in a file."""
    return _NAMES[dtype]


def to_numpy(array: mx.array) -> NDArray[Any]:
    """Return an evaluated array as NumPy's; bfloat16, which that does not have, as integers of the same bytes."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
