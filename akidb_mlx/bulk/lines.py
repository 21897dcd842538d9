"""Rows of files made of lines: JSON Lines, CSV, TSV and plain text. A bad row does not hide those after it."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from akidb_mlx.bulk.block import Block, SourceFile
from akidb_mlx.bulk.inputs import InputFile, open_stream
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown

# Bytes that are read at a time, and most bytes of a line, which is in memory as a whole.
_READ_BYTES, LONGEST_LINE = 1 << 20, 64 << 20
# Rows of a block, and bytes of lines that fill one, however few they are.
_BLOCK_ROWS, _BLOCK_BYTES = 1024, 4 << 20
# Rows at the beginning of a file that tell its columns and their types.
_SAMPLE_ROWS = 1000
TEXT_COLUMN = "text"
_END = ["the end"]
# The line that a longer one is read as.
_TOO_LONG = b"\x1etoo long"
_REASON_TOO_LONG = f"its line is longer than {LONGEST_LINE >> 20} MB"


class LineReader(Iterator[bytes]):
    """Yields lines without their ends; only a line feed ends one.

    Attributes:
        offset: where the next line begins, in the decompressed bytes.
    """

    def __init__(self, stream: pa.NativeFile, offset: int = 0) -> None:
        """Read from where the stream stands, which is said to be `offset`."""
        self.offset = offset
        self._stream = stream
        self._lines: list[bytes] = []
        self._rest = b""
        self._over = False

    def __next__(self) -> bytes:
        while not self._lines:
            if self._over:
                raise StopIteration
            self._fill()
        line = self._lines.pop()
        self.offset += len(line) + 1
        return line

    def _fill(self) -> None:
        """Read until a line is whole."""
        parts = [self._rest]
        length = len(self._rest)
        while block := self._stream.read(_READ_BYTES):
            head, feed, tail = block.partition(b"\n")
            parts.append(head)
            length += len(head)
            if feed:
                if length > LONGEST_LINE:
                    # Its bytes are counted at once, less those of the line that stands for it.
                    self.offset += length - len(_TOO_LONG)
                    parts = [_TOO_LONG]
                *whole, self._rest = tail.split(b"\n")
                self._lines = [*reversed(whole), b"".join(parts)]
                return
            if length > LONGEST_LINE:
                parts = []
        self._over, self._rest = True, b""
        if length > LONGEST_LINE:
            self._lines = [_TOO_LONG]
        elif length:
            self._lines = [b"".join(parts)]


class LinesFile(SourceFile):
    """A file whose lines are rows: JSON Lines or plain text. A blank line of JSON Lines is no row."""

    def __init__(self, file: InputFile) -> None:
        """Read the first rows, which tell the columns."""
        super().__init__(file)
        if file.format == "jsonl":
            sample = [row for row in self._sample() if row is not None]
            self._columns = list(dict.fromkeys(name for row in sample for name in row))
            self._sampled = {name: [row.get(name) for row in sample] for name in self._columns}
        else:
            self._columns, self._sampled = [TEXT_COLUMN], {TEXT_COLUMN: [""]}

    @property
    def names(self) -> list[str]:
        """Return the names of the columns that the first rows have."""
        return self._columns

    def type_of(self, name: str) -> pa.DataType:
        """Return the type that a column's first values have."""
        return infer_type(self._sampled[name])

    def count(self, marks: range) -> tuple[int, dict[int, int]]:
        """Count the lines; see `SourceFile`."""
        rows = place = 0
        offsets = {0: 0}
        ends = True
        with open_stream(self.file) as stream:
            while block := stream.read(_READ_BYTES):
                feeds = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
                for mark in range(_next_mark(marks, rows + 1), min(rows + len(feeds) + 1, marks.stop), marks.step):
                    offsets[mark] = place + int(feeds[mark - rows - 1]) + 1
                rows, place, ends = rows + len(feeds), place + len(block), block.endswith(b"\n")
        return rows + (not ends), offsets

    def blocks(self, start: int, stop: int, offset: int, names: list[str]) -> Iterator[Block]:
        """Yield rows; see `SourceFile`."""
        parse = _parse_json if self.file.format == "jsonl" else _parse_text
        block, size = Block.empty(names), 0
        with open_stream(self.file, offset) as stream:
            lines = LineReader(stream, offset)
            for row, line in zip(range(start, stop), lines, strict=False):
                try:
                    values = parse(line.removeprefix(codecs.BOM_UTF8) if not row else line)
                except ValueError as error:
                    block.refuse(row, str(error))
                else:
                    if values is not None:
                        block.add(row, [values.get(name) for name in names])
                size += len(line)
                if len(block.rows) + len(block.errors) >= _BLOCK_ROWS or size >= _BLOCK_BYTES:
                    yield block
                    block, size = Block.empty(names), 0
        yield block

    def _sample(self) -> Iterator[dict[str, Any] | None]:
        with open_stream(self.file) as stream:
            for row, line in zip(range(_SAMPLE_ROWS), LineReader(stream), strict=False):
                try:
                    yield _parse_json(line.removeprefix(codecs.BOM_UTF8) if not row else line)
                except ValueError:
                    continue  # it is rejected when its turn comes


class SeparatedFile(SourceFile):
    """A CSV or TSV file with a row of names. All values are strings, and an empty one is an empty text."""

    def __init__(self, file: InputFile) -> None:
        """Read the names."""
        super().__init__(file)
        self._delimiter = "\t" if file.format == "tsv" else ","
        with open_stream(file) as stream:
            lines = LineReader(stream)
            header = next(self._rows(lines), None)
            if header is None or isinstance(header[0], csv.Error):
                raise InvalidInputError(
                    f"{file.path} does not begin with a row of names, as a {file.format.upper()} file must"
                )
            self._header, self.first_offset = header[0], lines.offset

    @property
    def names(self) -> list[str]:
        """Return the names of the first row."""
        return self._header

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of strings."""
        del name
        return pa.string()

    def count(self, marks: range) -> tuple[int, dict[int, int]]:
        """Count the rows, quoted line feeds apart; see `SourceFile`."""
        offsets = {0: self.first_offset}
        rows = 0
        with open_stream(self.file, self.first_offset) as stream:
            lines = LineReader(stream, self.first_offset)
            for rows, (_, end) in enumerate(self._rows(lines), 1):
                if rows in marks:
                    offsets[rows] = end
        return rows, offsets

    def blocks(self, start: int, stop: int, offset: int, names: list[str]) -> Iterator[Block]:
        """Yield rows; see `SourceFile`."""
        places = [self._header.index(name) for name in names]
        width = len(self._header)
        block, size = Block.empty(names), 0
        with open_stream(self.file, offset) as stream:
            for row, (values, _) in zip(range(start, stop), self._rows(LineReader(stream, offset)), strict=False):
                if isinstance(values, csv.Error):
                    block.refuse(row, f"its quotation marks are not in order: {values}")
                elif values[0] == _TOO_LONG.decode():
                    block.refuse(row, _REASON_TOO_LONG)
                elif len(values) != width:
                    block.refuse(row, f"it has {len(values)} values, and the first row names {width}")
                else:
                    block.add(row, [values[place] for place in places])
                    size += sum(map(len, values))
                if len(block.rows) + len(block.errors) >= _BLOCK_ROWS or size >= _BLOCK_BYTES:
                    yield block
                    block, size = Block.empty(names), 0
        yield block

    def _rows(self, lines: LineReader) -> Iterator[tuple[list[str] | csv.Error, int]]:
        """Yield the values of each row that has any, or the fault of its quoting, and where the next one begins.

        Bytes that are not UTF-8 become lone surrogates, so that their row is refused and no other.
        """
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))  # for the process: the module has but one
        decoded = (line.decode("utf-8", "surrogateescape") + "\n" for line in lines)
        if not lines.offset:
            decoded = (line.removeprefix("\ufeff") if not number else line for number, line in enumerate(decoded))
        reader = csv.reader(decoded, delimiter=self._delimiter, strict=True)
        while True:
            try:
                if row := next(reader, _END):
                    if row is _END:
                        return
                    yield row, lines.offset
            except csv.Error as error:
                yield error, lines.offset


def infer_type(values: list[Any]) -> pa.DataType:
    """Return the type of values; where they are of several, that of the first which is not null."""
    try:
        found = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        found = pa.array([next(value for value in values if value is not None)]).type
    return pa.string() if pa.types.is_null(found) else found


def _parse_json(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    if line == _TOO_LONG:
        raise ValueError(_REASON_TOO_LONG)
    try:
        values = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"it is not a JSON object: {shown(values)}")
    return values


def _parse_text(line: bytes) -> dict[str, Any]:
    if line == _TOO_LONG:
        raise ValueError(_REASON_TOO_LONG)
    try:
        return {TEXT_COLUMN: line.removesuffix(b"\r").decode()}
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error


def _next_mark(marks: range, least: int) -> int:
    """Return the first of evenly spaced marks that is not below `least`."""
    return max(marks.start, marks.start + -(-(least - marks.start) // marks.step) * marks.step)
