"""The rows of a shard, checked, in chunks that are embedded in one call each.

A chunk holds rows of one shard only, and where it ends depends on those alone: not on how a file is read, and not on
other shards. So its vectors are the same bits whenever it is computed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pyarrow as pa

from akidb_mlx.bulk.block import Block
from akidb_mlx.bulk.inputs import reading
from akidb_mlx.bulk.options import BulkOptions
from akidb_mlx.bulk.reports import Rejected
from akidb_mlx.bulk.shards import Segment, Shard, open_source
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown
from akidb_mlx.texts import check_string

# Most rows and characters of a chunk: enough to sort by length with profit, and few enough for the queue.
CHUNK_ROWS, CHUNK_CHARACTERS = 4096, 1 << 20
# Most characters of a text; a thousand times what a model reads.
LONGEST_TEXT = 16 << 20


@dataclass
class Chunk:
    """Rows that are embedded in one call.

    Attributes:
        texts: the texts.
        columns: the id and the kept columns.
        places: the file and the number of each row.
        rejected: rows that were refused since the chunk before, in no order.
        skipped: how many rows without a text were left out since then.
        read: how many rows were read since then.
    """

    texts: list[str]
    columns: pa.Table
    places: list[tuple[str, int]]
    rejected: list[Rejected] = field(default_factory=list)
    skipped: int = 0
    read: int = 0

    def reject(self, index: int, shard: int, reason: str) -> None:
        """Move a row to those that were refused."""
        file, row = self.places.pop(index)
        del self.texts[index]
        self.columns = pa.concat_tables([self.columns.slice(0, index), self.columns.slice(index + 1)])
        self.rejected.append(Rejected(shard, file, row + 1, reason))


def read_chunks(shard: Shard, options: BulkOptions, schema: pa.Schema) -> Iterator[Chunk]:
    """Yield the rows of a shard.

    The last chunk may hold no row, but the count of what was left out.

    Raises:
        InvalidInputError: a file cannot be read, or there is a null and `on_null` is "error".
    """
    pending = Chunk([], schema.empty_table(), [])
    for rows in _read_rows(shard, options, schema):
        pending.rejected += rows.rejected
        pending.skipped += rows.skipped
        pending.read += rows.read
        start = 0
        sizes = [*accumulate(map(len, rows.texts), initial=0)]
        characters = sum(map(len, pending.texts))
        while start < len(rows.texts):
            # Up to the last row with which the chunk is not too large; one row at least.
            fits = bisect_right(sizes, sizes[start] + CHUNK_CHARACTERS - characters) - 1
            stop = min(fits, start + CHUNK_ROWS - len(pending.texts), len(rows.texts))
            stop = max(stop, start if pending.texts else start + 1)
            pending.texts += rows.texts[start:stop]
            pending.places += rows.places[start:stop]
            pending.columns = pa.concat_tables([pending.columns, rows.columns.slice(start, stop - start)])
            if stop < len(rows.texts) or len(pending.texts) == CHUNK_ROWS:
                yield pending
                pending, characters = Chunk([], schema.empty_table(), []), 0
            start = stop
    yield pending


def _read_rows(shard: Shard, options: BulkOptions, schema: pa.Schema) -> Iterator[Chunk]:
    """Yield the rows of a shard as they come, checked."""
    names = list(dict.fromkeys((options.column, *options.columns)))
    first = shard.first
    for segment in shard.segments:
        source = open_source(segment.file)
        with reading(segment.file.path):
            for block in source.blocks(segment.start, segment.stop, segment.offset, names):
                yield _check(block, segment, first, shard.index, options, schema)
        first += segment.stop - segment.start


def _check(block: Block, segment: Segment, first: int, shard: int, options: BulkOptions, schema: pa.Schema) -> Chunk:
    """Return the rows of a block that can be embedded."""
    path = segment.file.path
    rejected = [Rejected(shard, path, row + 1, reason) for row, reason in block.errors]
    values = _texts(block.columns[options.column])
    good: list[int] = []
    skipped = 0
    for index, text in enumerate(values):
        if type(text) is str and text.isascii() and len(text) <= LONGEST_TEXT:
            good.append(index)
        elif text is None and options.on_null == "skip":
            skipped += 1
        elif text is None:
            raise InvalidInputError(
                f"{path}, row {block.rows[index] + 1}: no text; leave such rows out with on_null skip"
            )
        elif reason := _flaw(text):
            rejected.append(Rejected(shard, path, block.rows[index] + 1, reason))
        else:
            good.append(index)
    arrays: list[pa.Array] = []
    for position, name in enumerate(schema.names):
        if options.id_column is None and not position:
            offset = first - segment.start
            arrays.append(pa.array([row + offset for row in block.rows], pa.int64()))
            continue
        array, flaws = _convert(block.columns[name], schema.field(name), is_id=not position)
        arrays.append(array)
        if flaws:
            rejected += [Rejected(shard, path, block.rows[i] + 1, flaws[i]) for i in good if i in flaws]
            good = [index for index in good if index not in flaws]
    columns = pa.Table.from_arrays(arrays, schema=schema)
    if len(good) < len(values):
        columns = columns.take(pa.array(good, pa.int64()))
        values = [values[index] for index in good]
    places = [(path, block.rows[index]) for index in good]
    return Chunk(values, columns, places, rejected, skipped, len(block.rows) + len(block.errors))


def _texts(values: Any) -> list[Any]:
    """Return a column as a list; a value that is not UTF-8 stays bytes."""
    if isinstance(values, list):
        return values
    try:
        return values.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_decoded(value) for value in values]


def _decoded(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object


def _flaw(text: Any) -> str | None:
    """Return the reason why a value is no text that can be embedded."""
    if isinstance(text, bytes):
        return "its text is not UTF-8"
    if not isinstance(text, str):
        return f"its text is no string: {shown(text)}"
    if len(text) > LONGEST_TEXT:
        return f"its text has {len(text)} characters, and at most {LONGEST_TEXT} are read"
    try:
        check_string("its text", text)
    except InvalidInputError:
        return "its text is not UTF-8, or holds a lone surrogate"
    return None


def _convert(values: Any, to: pa.Field, is_id: bool) -> tuple[pa.Array, dict[int, str]]:
    """Return a column in the type of the first file, and for each value that does not fit, the reason; null there."""
    convert: Callable[[Any], pa.Array]
    if isinstance(values, list):
        convert = lambda some: pa.array(some, to.type)  # noqa: E731
    else:
        convert = lambda some: some if some.type == to.type else some.cast(to.type)  # noqa: E731
    flaws: dict[int, str] = {}
    try:
        array = convert(values)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        pieces = []
        for index in range(len(values)):
            try:
                pieces.append(convert(values[index : index + 1]))
            except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
                flaws[index] = f"its {to.name} is no {to.type}, the type of the first rows: {shown(values[index])}"
                pieces.append(pa.nulls(1, to.type))
        array = pa.concat_arrays(pieces)
    if is_id and array.null_count:
        nulls = array.is_null().to_pylist()
        flaws |= {i: f"its {to.name} is null" for i, null in enumerate(nulls) if null and i not in flaws}
    return array, flaws
