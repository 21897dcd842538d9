"""The way of rows through one process: read, tokenised, computed and written side by side, in shards.

While one chunk is computed, the ones after it are read and tokenised, of the same shard or of the next, and the one
before it is written. At most a few chunks are in memory, whatever the size of the files.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from akidb_mlx.bulk.chunks import Chunk, read_chunks
from akidb_mlx.bulk.manifest import JobFolder, ShardRecord, writing
from akidb_mlx.bulk.models import call_options
from akidb_mlx.bulk.options import BulkOptions
from akidb_mlx.bulk.reports import Rejected
from akidb_mlx.bulk.shards import Shard
from akidb_mlx.bulk.writer import ShardWriter
from akidb_mlx.errors import InferenceError, InvalidInputError, ServiceOverloadedError
from akidb_mlx.options import EmbedOptions
from akidb_mlx.quantized import Ranges
from akidb_mlx.service import EmbeddingService
from akidb_mlx.vectors import EmbeddingBatch

# Chunks that are read ahead, and those that are tokenised and not written yet.
_READ_AHEAD, _UNDER_WAY = 2, 3


@dataclass(frozen=True)
class JobPlan:
    """All that a process needs to compute shards of a job.

    Attributes:
        output: the folder that they are written to.
        options: the options.
        schema: the columns that are taken over.
        ranges: those of int8 vectors, else None.
    """

    output: Path
    options: BulkOptions
    schema: pa.Schema
    ranges: Ranges | None


@dataclass(frozen=True)
class Written:
    """A chunk that was written.

    Attributes:
        read: rows of the input that it covers.
        tokens: tokens that the model read.
        truncated: texts that were cut.
        rejected: rows that were refused.
        record: the shard, where this was the last chunk of it.
    """

    read: int
    tokens: int
    truncated: int
    rejected: list[Rejected]
    record: ShardRecord | None


def embed_shards(service: EmbeddingService, shards: Iterable[Shard], plan: JobPlan) -> Iterator[Written]:
    """Compute shards and write them; yield each chunk of them when it is written.

    Where the iteration is ended early, what is under way is dropped.

    Raises:
        InvalidInputError: a file cannot be read.
        ConfigurationError: the output cannot be written.
    """
    options = call_options(plan.options, plan.ranges)
    output = _Output(service, plan, options)
    chunks = _chunks(shards, plan)
    reading: deque[Future[tuple[Shard, Chunk, bool] | None]] = deque()
    calls: deque[_Call] = deque()
    written: deque[Future[Written]] = deque()
    with ThreadPoolExecutor(1, "bulk-reader") as reader, ThreadPoolExecutor(1, "bulk-writer") as writer:
        try:
            for _ in range(_READ_AHEAD):
                reading.append(reader.submit(next, chunks, None))
            while (item := reading.popleft().result()) is not None:
                reading.append(reader.submit(next, chunks, None))
                shard, chunk, last = item
                call = _Call(service, shard.index, chunk, options)
                calls.append(call)
                written.append(writer.submit(output.write, call, last))
                if len(written) >= _UNDER_WAY:
                    yield written.popleft().result()
                    calls.popleft()
            while written:
                yield written.popleft().result()
                calls.popleft()
        finally:
            for read in reading:
                read.cancel()
            for write in written:
                write.cancel()
            for call in calls:
                call.future.cancel()
            writer.submit(output.drop).result()


def _chunks(shards: Iterable[Shard], plan: JobPlan) -> Iterator[tuple[Shard, Chunk, bool]]:
    """Yield the chunks of shards, each with whether it is the last of its shard."""
    for shard in shards:
        chunks = read_chunks(shard, plan.options, plan.schema)
        chunk = next(chunks)
        for following in chunks:
            yield shard, chunk, False
            chunk = following
        yield shard, chunk, True


class _Call:
    """A chunk that is being embedded."""

    def __init__(self, service: EmbeddingService, shard: int, chunk: Chunk, options: EmbedOptions) -> None:
        """Tokenise the texts, and let them be computed."""
        self.shard, self.chunk = shard, chunk
        self._service, self._options = service, options
        self._submit()

    def _submit(self) -> None:
        while True:
            try:
                self.future = self._service.submit_isolated(self.chunk.texts, **self._options)
                return
            except ServiceOverloadedError as error:  # a caller of its own service shares the queue
                time.sleep(error.retry_after_s)
            except InvalidInputError as error:
                self._reject(error)

    def result(self) -> EmbeddingBatch:
        """Wait for the vectors; a row that has none is refused, and the others are computed again."""
        while True:
            try:
                return self.future.result()
            except (InvalidInputError, InferenceError) as error:
                self._reject(error)
                self._submit()

    def _reject(self, error: InvalidInputError | InferenceError) -> None:
        """Refuse the row that an error names; raise one that names none."""
        if error.index is None:
            raise error
        reason = str(error).replace(f"text {error.index}", "its text", 1)
        self.chunk.reject(error.index, self.shard, reason)


class _Output:
    """Writes chunks one after another, on one thread."""

    def __init__(self, service: EmbeddingService, plan: JobPlan, options: EmbedOptions) -> None:
        call = service.parse_options(options)
        self._plan = plan
        self._folder = JobFolder(plan.output)
        self._width = -(-call.dimensions // 8) if plan.options.dtype == "binary" else call.dimensions
        self._writer: ShardWriter | None = None

    def write(self, call: _Call, last: bool) -> Written:
        """Write a chunk once it is computed; the last one publishes its shard."""
        batch = call.result()
        chunk = call.chunk
        record = None
        with writing(self._folder.path):
            if self._writer is None:
                self._writer = ShardWriter(self._folder, call.shard, self._plan.options, self._plan.schema, self._width)
            self._writer.write(chunk, batch)
            if last:
                record = self._writer.publish()
                self._writer = None
        return Written(chunk.read, sum(batch.token_counts), sum(batch.truncated), chunk.rejected, record)

    def drop(self) -> None:
        """Delete the files of a shard that is not whole."""
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # of a full disk, which was reported
                self._writer.drop()
            self._writer = None
