"""`embed_files`: a job from its options to its summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from typing import Any, get_args

import pyarrow as pa

from akidb_mlx.bulk import ray_engine
from akidb_mlx.bulk.duplicates import check_ids
from akidb_mlx.bulk.inputs import InputFile, find_inputs
from akidb_mlx.bulk.manifest import FORMAT, VERSION, JobFolder, ShardRecord, check_unchanged, now
from akidb_mlx.bulk.models import call_options, choose_ranges, identify, parse_ranges, sample_texts
from akidb_mlx.bulk.options import DEFAULT_MAX_REJECTED, DEFAULT_SHARD_ROWS, BulkEngine, BulkOptions, parse_bulk_options
from akidb_mlx.bulk.pipeline import JobPlan, Written, embed_shards
from akidb_mlx.bulk.reports import BulkSummary, Event, Listener, Rejected
from akidb_mlx.bulk.shards import Shard, find_schema, plan_shards
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.local_paths import local_path
from akidb_mlx.options import shown
from akidb_mlx.service import EmbeddingService

# Texts that a dry run times.
_TIMED_TEXTS = 512


def embed_files(
    inputs: Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str],
    model: str | PathLike[str] | EmbeddingService,
    column: str = "text",
    id_column: str | None = None,
    keep: Sequence[str] = (),
    format: str = "parquet",  # noqa: A002 - the option's name
    dtype: str = "float32",
    dimensions: int | None = None,
    input_type: str | None = None,
    on_overflow: str = "truncate",
    shard_rows: int = DEFAULT_SHARD_ROWS,
    on_null: str = "skip",
    max_rejected: int = DEFAULT_MAX_REJECTED,
    fresh: bool = False,
    dry_run: bool = False,
    engine: str = "local",
    device: str | None = None,
    backend: str | None = None,
    listener: Listener | None = None,
) -> BulkSummary:
    """Embed a column of files, and write the vectors in shards.

    A job that was interrupted goes on where it was: the same call computes only the shards that are not there.

    Args:
        inputs: files, folders, patterns as in "texts/*.parquet", and addresses that fsspec knows as in "s3://…".
            Formats by name: Parquet, Arrow IPC, JSON Lines, CSV and TSV with a row of names, and plain text, whose
            lines are a column "text"; those made of lines may be compressed (.gz, .zst).
        output: the folder of the shards, on a disk that all machines of the job share.
        model: a name as `EmbeddingService` takes it; or a service, which stays open.
        column: the column of the texts.
        id_column: a column whose values differ, to know rows by; without one, the number of each row among all of the
            input is the column "id".
        keep: other columns to take over.
        format: "parquet"; or "npy" for the vectors in .npy files, beside Parquet files of the other columns.
        dtype: type of the values: "float32", "float16", "int8" or "binary". The ranges for int8 are taken from a sample
            before the first shard, and stand in the manifest.
        dimensions: keep this many of the first values (Matryoshka).
        input_type: the model's prompt to put before each text, as in "document"; None adds nothing.
        on_overflow: how a text is treated that is longer than the model takes: "truncate", "chunk" or "error", which
            refuses its row.
        shard_rows: rows of a shard; also the most that an interruption loses.
        on_null: whether to "skip" a row without a text, or end the job with an "error".
        max_rejected: rows that may be refused; with one more, the job ends.
        fresh: delete what an earlier job wrote in `output`, and begin anew.
        dry_run: count, and estimate size and time; write nothing.
        engine: "local", or "ray" to compute on a cluster (extra `ray`).
        device: see `EmbeddingService`.
        backend: likewise.
        listener: told of each step; see `Event`.

    Raises:
        InvalidInputError: an option or an input is not usable, too many rows were refused, or the job in `output` was
            begun with another model, option or input.
        ConfigurationError: the output cannot be written, or Ray is not installed.
        ModelNotFoundError: see `EmbeddingService`, as for its other errors.
    """
    options = parse_bulk_options(
        column=column,
        id_column=id_column,
        keep=keep,
        format=format,
        dtype=dtype,
        dimensions=dimensions,
        input_type=input_type,
        on_overflow=on_overflow,
        shard_rows=shard_rows,
        on_null=on_null,
        max_rejected=max_rejected,
    )
    if engine not in get_args(BulkEngine):
        raise InvalidInputError(f"engine must be one of {', '.join(get_args(BulkEngine))}, found {shown(engine)}")
    if engine == "ray":
        ray_engine.check_installed()
    began = time.monotonic()
    folder = JobFolder(local_path(output))
    files = find_inputs(inputs, folder.path)
    schema = find_schema(files, options)
    with ExitStack() as resources:
        owned = not isinstance(model, EmbeddingService)
        service = resources.enter_context(
            EmbeddingService(model, device=device, backend=backend)
            if not isinstance(model, EmbeddingService)
            else nullcontext(model)
        )
        service.parse_options({"dimensions": dimensions})  # before the rows are counted
        shards, counts = plan_shards(files, shard_rows)
        if dry_run:
            return _estimate(service, folder, shards, options, schema)
        resources.enter_context(folder.claimed())
        if fresh:
            folder.clear()
        manifest = _begin(service, folder, files, counts, shards, options, schema)
        plan = JobPlan(folder.path.resolve(), options, schema, parse_ranges(manifest["ranges"]))
        job = _Job(folder, manifest, shards, options, listener or _ignore)
        if engine == "ray":
            name = service.model_name
            if owned:
                service.close()  # the memory is a worker's, where one runs on this machine
            worker = ray_engine.WorkerModel(name, device, backend, manifest["model"])
            job.run(ray_engine.embed_shards(job.pending, plan, worker))
        else:
            job.run(embed_shards(service, job.pending, plan))
        return job.summary(time.monotonic() - began)


@dataclass
class _Job:
    """A job in its folder: what is done of it, and what is left."""

    folder: JobFolder
    manifest: dict[str, Any]
    shards: list[Shard]
    options: BulkOptions
    listener: Listener

    def __post_init__(self) -> None:
        self.folder.drop_unfinished()
        self._records = self.folder.read_records(self.manifest)
        self._computed = 0
        self._refused = sum(len(record.rejected) for record in self._records.values())
        # Those that were refused in shards that are not whole.
        self._open: list[Rejected] = []

    @property
    def pending(self) -> list[Shard]:
        """Return the shards that are not done."""
        return [shard for shard in self.shards if shard.index not in self._records]

    def run(self, written: Iterator[Written]) -> None:
        """Take what an engine has written until all is done, and note it, however it ends."""
        self.listener(
            {
                "event": "begin",
                "rows": self.manifest["rows"],
                "shards": len(self.shards),
                "done_rows": sum(record.read for record in self._records.values()),
                "done_shards": len(self._records),
            }
        )
        self._check_refused()
        complete = False
        try:
            with closing(written):  # type: ignore[type-var]  # both engines are generators
                for one in written:
                    self._take(one)
            complete = True
        finally:
            self.manifest |= {"state": "complete" if complete else "begun", "finished": now() if complete else None}
            self.folder.write_manifest(self.manifest, self._records, () if complete else self._open)
        self.folder.drop_work()

    def summary(self, seconds: float) -> BulkSummary:
        """Return the outcome, and tell it."""
        done = self._records.values()
        summary = BulkSummary(
            output=str(self.folder.path),
            shards=len(done),
            rows=self.manifest["rows"],
            embedded=sum(record.rows for record in done),
            skipped=sum(record.skipped for record in done),
            rejected=sum(len(record.rejected) for record in done),
            truncated=sum(record.truncated for record in done),
            tokens=sum(record.tokens for record in done),
            bytes=sum(file.bytes for record in done for file in record.files),
            seconds=round(seconds, 3),
            computed=self._computed,
        )
        self.listener({"event": "end", **summary.as_json()})
        return summary

    def _take(self, one: Written) -> None:
        """Note a chunk that was written, and the shard that it completes."""
        self._refused += len(one.rejected)
        self._open += one.rejected
        for row in one.rejected:
            self.listener({"event": "rejected", **row.as_json()})
        self.listener({"event": "progress", "rows": one.read, "tokens": one.tokens, "truncated": one.truncated})
        if one.record is not None:
            self._note(one.record)
        self._check_refused()

    def _note(self, record: ShardRecord) -> None:
        self._records[record.shard] = record
        self._computed += record.rows
        self._open = [row for row in self._open if row.shard != record.shard]
        self.listener({"event": "shard", **record.as_json(), "rejected": len(record.rejected)})

    def _check_refused(self) -> None:
        if self._refused > self.options.max_rejected:
            last = f"; the last: {one.file}, row {one.row}: {one.reason}" if (one := self._last()) else ""
            raise InvalidInputError(
                f"{self._refused} rows were refused, and max_rejected is {self.options.max_rejected}{last}; "
                f"they are in {self.folder.path / 'rejected.jsonl'}: mend them and begin anew, or go on with a larger "
                "max_rejected"
            )

    def _last(self) -> Rejected | None:
        every = [*(row for record in self._records.values() for row in record.rejected), *self._open]
        return every[-1] if every else None


def _ignore(event: Event) -> None:
    """Take an event that nobody asked for."""


def _begin(
    service: EmbeddingService,
    folder: JobFolder,
    files: list[InputFile],
    counts: list[int],
    shards: list[Shard],
    options: BulkOptions,
    schema: pa.Schema,
) -> dict[str, Any]:
    """Return the manifest of the job that was begun in the folder, or else begin one."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "state": "begun",
        "model": identify(service),
        "options": options.recorded,
        "inputs": [
            {"path": file.path, "format": file.format, "bytes": file.bytes, "sha256": file.sha256, "rows": rows}
            for file, rows in zip(files, counts, strict=True)
        ],
        "columns": {field.name: str(field.type) for field in schema},
        "dimension": service.parse_options(call_options(options, None) | {"output_dtype": "float32"}).dimensions,
        "rows": sum(counts),
        "ranges": None,
        "software": {"akidb-mlx": version("akidb-mlx"), "pyarrow": pa.__version__},
        "created": now(),
        "finished": None,
        "shards": [],
    }
    before = folder.read_manifest()
    if before is not None:
        check_unchanged(before, manifest)
        return before
    if options.id_column is not None:
        check_ids(files, counts, options.id_column, folder.work)
    if options.dtype == "int8":
        ranges = choose_ranges(service, sample_texts(shards, options, schema), options)
        manifest["ranges"] = ranges.tolist()
    folder.write_manifest(manifest, {})
    return manifest


def _estimate(
    service: EmbeddingService, folder: JobFolder, shards: list[Shard], options: BulkOptions, schema: pa.Schema
) -> BulkSummary:
    """Return what a job would come to, by a sample of its texts."""
    texts = sample_texts(shards, options, schema)
    step = max(1, len(texts) // _TIMED_TEXTS)
    texts = texts[::step][:_TIMED_TEXTS]
    rows = sum(shard.rows for shard in shards)
    call = service.parse_options({"dimensions": options.dimensions, "input_type": options.input_type})
    began = time.monotonic()
    batch = service.submit_isolated(texts, input_type=options.input_type, dimensions=options.dimensions).result()
    seconds = (time.monotonic() - began) / max(len(texts), 1)
    value = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}[options.dtype]
    return BulkSummary(
        output=str(folder.path),
        shards=len(shards),
        rows=rows,
        embedded=rows,
        skipped=0,
        rejected=0,
        truncated=0,
        tokens=round(sum(batch.token_counts) / max(len(texts), 1) * rows),
        bytes=round(rows * call.dimensions * value),
        seconds=round(seconds * rows, 1),
        computed=0,
        dry=True,
    )
