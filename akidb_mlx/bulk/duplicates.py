"""The search for ids that stand in several rows, on the disk where they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from akidb_mlx.bulk.inputs import InputFile, reading
from akidb_mlx.bulk.shards import open_source
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown

# The hash of an id, and its row among all.
_ENTRY = np.dtype([("low", "<u8"), ("high", "<u8"), ("row", "<i8")])
_BUCKETS = 256
_HASH_BYTES = 16


def check_ids(files: Sequence[InputFile], counts: Sequence[int], column: str, work: Path) -> None:
    """Refuse files of which two rows have the same id.

    Hashes of the ids, 128 bits each, are sorted into files, and each of those is searched by itself: so memory holds
    one in 256 of them.

    Raises:
        InvalidInputError: two rows have the same id; the message names both.
    """
    with tempfile.TemporaryDirectory(dir=work, prefix="ids-", suffix=".partial") as folder:
        paths = [Path(folder, f"{number:02x}") for number in range(_BUCKETS)]
        buckets = [path.open("wb") for path in paths]
        try:
            first = 0
            for file, count in zip(files, counts, strict=True):
                with reading(file.path):
                    for entries in _hashes(file, count, column, first):
                        _sort_into(buckets, entries)
                first += count
        finally:
            for bucket in buckets:
                bucket.close()
        for path in paths:
            entries = np.sort(np.fromfile(path, _ENTRY), order=["low", "high", "row"])
            same = (entries["low"][1:] == entries["low"][:-1]) & (entries["high"][1:] == entries["high"][:-1])
            if same.any():
                at = int(np.argmax(same))
                one, other = (_place(int(row), files, counts) for row in entries["row"][at : at + 2])
                value = _value(*other, column)
                raise InvalidInputError(
                    f"two rows have the {column} {shown(value)}: {one[0].path}, row {one[1] + 1}, and "
                    f"{other[0].path}, row {other[1] + 1}; ids must differ"
                )


def _hashes(file: InputFile, count: int, column: str, first: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the hashes of the ids of a file; a row without one is refused later."""
    source = open_source(file)
    for block in source.blocks(0, count, source.first_offset, [column]):
        values = block.columns[column]
        values = values if isinstance(values, list) else values.to_pylist()
        entries = np.empty(len(values), _ENTRY)
        hashes = np.frombuffer(b"".join(map(_hash, values)), "<u8").reshape(-1, 2)
        entries["low"], entries["high"] = hashes[:, 0], hashes[:, 1]
        entries["row"] = np.array(block.rows, np.int64) + first
        yield entries[[value is not None for value in values]]


def _hash(value: Any) -> bytes:
    return blake2b(repr(value).encode("utf-8", "replace"), digest_size=_HASH_BYTES).digest()


def _sort_into(buckets: Sequence[BinaryIO], entries: np.ndarray[Any, Any]) -> None:
    numbers = (entries["low"] % _BUCKETS).astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(_BUCKETS), side="right")
    start = 0
    for bucket, end in zip(buckets, ends.tolist(), strict=True):
        if end > start:
            bucket.write(entries[order[start:end]].tobytes())
        start = end


def _place(row: int, files: Sequence[InputFile], counts: Sequence[int]) -> tuple[InputFile, int]:
    """Return the file of a row, and its number in it."""
    for file, count in zip(files, counts, strict=True):
        if row < count:
            return file, row
        row -= count
    raise AssertionError("a row of no file")


def _value(file: InputFile, row: int, column: str) -> Any:
    """Return the id of a row."""
    source = open_source(file)
    for block in source.blocks(0, row + 1, source.first_offset, [column]):
        if row in block.rows:
            value = block.columns[column][block.rows.index(row)]
            return value if isinstance(block.columns[column], list) else value.as_py()
    raise AssertionError("a row of no file")
