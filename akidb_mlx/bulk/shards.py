"""The plan of a job: which rows of which files make up each shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from akidb_mlx.bulk.block import SourceFile
from akidb_mlx.bulk.columnar import ArrowFile, ParquetFile
from akidb_mlx.bulk.inputs import FileFormat, InputFile, reading
from akidb_mlx.bulk.lines import TEXT_COLUMN, LinesFile, SeparatedFile
from akidb_mlx.bulk.options import ROW_ID, BulkOptions
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown

_SOURCES: dict[FileFormat, type[SourceFile]] = {
    "parquet": ParquetFile,
    "arrow": ArrowFile,
    "jsonl": LinesFile,
    "text": LinesFile,
    "csv": SeparatedFile,
    "tsv": SeparatedFile,
}
# More rows than any job has.
_NO_END = 1 << 62


@dataclass(frozen=True)
class Segment:
    """Rows of one file, from `start` to `stop`, that begin at the place `offset` of its bytes."""

    file: InputFile
    start: int
    stop: int
    offset: int


@dataclass(frozen=True)
class Shard:
    """Rows that are written together.

    Attributes:
        index: the number of the shard.
        first: the number of its first row, among all rows of the job.
        segments: where its rows are; several where it begins in one file and ends in another.
    """

    index: int
    first: int
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows that are read for it."""
        return sum(segment.stop - segment.start for segment in self.segments)


def open_source(file: InputFile) -> SourceFile:
    """Open a file for its rows.

    Raises:
        InvalidInputError: it cannot be read.
    """
    with reading(file.path):
        return _SOURCES[file.format](file)


def find_schema(files: Sequence[InputFile], options: BulkOptions) -> pa.Schema:
    """Return the columns that shards take over, the id first, with their types in the first file.

    Raises:
        InvalidInputError: a file lacks a column, or the texts of one cannot be texts.
    """
    fields: list[pa.Field] = []
    for file in files:
        source = open_source(file)
        for name in (options.column, *options.columns):
            if name not in source.names:
                hint = f"; the lines of a text file are its column {TEXT_COLUMN!r}" * (file.format == "text")
                raise InvalidInputError(f"{file.path} has no column {shown(name)}; it has {_few(source.names)}{hint}")
        if file.format in ("parquet", "arrow") and not _holds_text(kind := source.type_of(options.column)):
            raise InvalidInputError(f"{file.path}: the column {shown(options.column)} holds {kind}, and no texts")
        if not fields:
            with reading(file.path):
                fields = [pa.field(name, source.type_of(name)) for name in options.columns]
    if options.id_column is None:
        fields.insert(0, pa.field(ROW_ID, pa.int64(), nullable=False))
    return pa.schema(fields)


def plan_shards(files: Sequence[InputFile], shard_rows: int) -> tuple[list[Shard], list[int]]:
    """Count the rows of files, and divide them.

    Returns:
        The shards, all of `shard_rows` rows but the last, and the number of rows of each file.

    Raises:
        InvalidInputError: a file cannot be read, or there is no row in any.
    """
    shards: list[Shard] = []
    counts: list[int] = []
    segments: list[Segment] = []
    first = 0
    for file in files:
        free = shard_rows - (first % shard_rows)
        source = open_source(file)
        with reading(file.path):
            rows, offsets = source.count(range(free, _NO_END, shard_rows))
        start = 0
        while start < rows:
            stop = min(rows, start + shard_rows - (first + start) % shard_rows)
            segments.append(Segment(file, start, stop, offsets[start]))
            if (first + stop) % shard_rows == 0:
                shards.append(Shard(len(shards), len(shards) * shard_rows, tuple(segments)))
                segments = []
            start = stop
        first += rows
        counts.append(rows)
    if segments:
        shards.append(Shard(len(shards), len(shards) * shard_rows, tuple(segments)))
    if not shards:
        raise InvalidInputError(f"there are no rows in {_few([file.path for file in files])}")
    return shards, counts


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _few(names: Sequence[str], most: int = 20) -> str:
    """Return names as a message lists them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more if names else "none"
