"""Rows that are read together, and the interface of a file that yields them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from akidb_mlx.bulk.inputs import InputFile


@dataclass
class Block:
    """Some rows of a file.

    Attributes:
        rows: the number of each in its file, from 0.
        columns: the values of each column, a list or an Arrow array.
        errors: the rows that could not be read, each with the reason.
    """

    rows: list[int]
    columns: dict[str, Any]
    errors: list[tuple[int, str]]

    @classmethod
    def empty(cls, names: list[str]) -> Block:
        """Return a block to add rows to."""
        return cls([], {name: [] for name in names}, [])

    def add(self, row: int, values: list[Any]) -> None:
        """Add a row, its values in the order of the columns."""
        self.rows.append(row)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def refuse(self, row: int, reason: str) -> None:
        """Add a row that could not be read."""
        self.errors.append((row, reason))


class SourceFile(ABC):
    """One file of a job, open for its rows.

    Attributes:
        file: its place and kind.
        first_offset: where row 0 begins in its bytes, after a row of names.
    """

    first_offset = 0

    def __init__(self, file: InputFile) -> None:
        self.file = file

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of its columns."""

    @abstractmethod
    def type_of(self, name: str) -> pa.DataType:
        """Return the type of a column."""

    @abstractmethod
    def count(self, marks: range) -> tuple[int, dict[int, int]]:
        """Count its rows.

        Args:
            marks: rows at which a shard begins, beside row 0.

        Returns:
            The number of rows, and the place in its bytes of row 0 and of each mark, which `blocks` takes back.
        """

    @abstractmethod
    def blocks(self, start: int, stop: int, offset: int, names: list[str]) -> Iterator[Block]:
        """Yield the rows from `start` to `stop`, some at a time.

        Args:
            start: the first row.
            stop: the row after the last one.
            offset: the place of `start`, as `count` gave it.
            names: the columns that are read.
        """
