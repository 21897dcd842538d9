"""Rows of files made of columns: Parquet and Arrow IPC, read in record batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from akidb_mlx.bulk.block import Block, SourceFile
from akidb_mlx.bulk.inputs import InputFile, open_file

# Rows of a record batch.
_BATCH_ROWS = 1024
# Bytes of a column that are read at a time.
_READ_BYTES = 1 << 20


class _SchemaFile(SourceFile):
    """A file that states its columns and their types, and is read by numbers of rows."""

    _schema: pa.Schema

    @property
    def names(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._schema.names)

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of a column."""
        return self._schema.field(name).type

    def count(self, marks: range) -> tuple[int, dict[int, int]]:
        """Return the number of rows, and offset 0 for each mark; see `SourceFile`."""
        rows = self._rows()
        return rows, dict.fromkeys((0, *range(marks.start, rows, marks.step)), 0)

    @abstractmethod
    def _rows(self) -> int:
        """Return the number of rows."""


class ParquetFile(_SchemaFile):
    """A Parquet file, of which only the row groups that hold the rows are read."""

    def __init__(self, file: InputFile) -> None:
        """Read the footer."""
        super().__init__(file)
        # A row group may be large: its columns are read in pieces.
        self._parquet = pq.ParquetFile(open_file(file), pre_buffer=False, buffer_size=_READ_BYTES)
        self._schema = self._parquet.schema_arrow

    def blocks(self, start: int, stop: int, offset: int, names: list[str]) -> Iterator[Block]:
        """Yield rows; see `SourceFile`."""
        del offset
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        ends = list(accumulate(sizes))
        groups = [g for g, end in enumerate(ends) if end > start and end - sizes[g] < stop]
        if not groups:
            return
        batches = self._parquet.iter_batches(_BATCH_ROWS, groups, columns=names, use_threads=False)
        yield from _cut(batches, ends[groups[0]] - sizes[groups[0]], start, stop)

    def _rows(self) -> int:
        rows: int = self._parquet.metadata.num_rows  # of the footer
        return rows


class ArrowFile(_SchemaFile):
    """An Arrow IPC file, or a stream in a file."""

    def __init__(self, file: InputFile) -> None:
        """Read the schema."""
        super().__init__(file)
        with open_file(file) as opened:
            self._seekable = opened.read(6) == b"ARROW1"
        self._schema = self._open().schema

    def blocks(self, start: int, stop: int, offset: int, names: list[str]) -> Iterator[Block]:
        """Yield rows; see `SourceFile`."""
        del offset
        pieces = (
            batch.slice(first, _BATCH_ROWS).select(names)
            for batch in self._batches()
            for first in range(0, batch.num_rows, _BATCH_ROWS)
        )
        yield from _cut(pieces, 0, start, stop)

    def _rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches())

    def _open(self) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
        opened = open_file(self.file)
        return pa.ipc.open_file(opened) if self._seekable else pa.ipc.open_stream(opened)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        opened = self._open()
        if isinstance(opened, pa.ipc.RecordBatchFileReader):
            return map(opened.get_batch, range(opened.num_record_batches))
        return iter(opened)


def _cut(batches: Iterator[pa.RecordBatch], first: int, start: int, stop: int) -> Iterator[Block]:
    """Yield those of the rows that lie between two, where the first batch begins with row `first`."""
    for batch in batches:
        end = first + batch.num_rows
        if first >= stop:
            return
        low, high = max(start, first), min(stop, end)
        if low < high:
            cut = batch.slice(low - first, high - low)
            yield Block(list(range(low, high)), dict(zip(batch.schema.names, cut.columns, strict=True)), [])
        first = end
