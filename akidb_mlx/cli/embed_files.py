"""`akidb-mlx embed-files`, which embeds a column of files of any size."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from akidb_mlx.cli.output import report, write_json, write_line
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.settings import BackendName, DeviceName

if TYPE_CHECKING:
    from akidb_mlx.bulk import BulkSummary, Event

# Refused rows that are reported one by one; all are in rejected.jsonl.
_SHOWN_ROWS = 10


def embed_files(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, patterns or fsspec URLs: Parquet, Arrow IPC, JSON Lines, CSV, TSV or text, the last "
            "four also with gzip or zstd."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="AKIDB_MODEL",
            help="Catalogue name, org/repo, org/repo@revision or directory of the model.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the shards.")],
    column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Column to know rows by; without one, rows are numbered.", show_default=False)
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Column to take over; may be given several times.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["parquet", "npy"], typer.Option(help="Where the vectors go: into the Parquet files, or beside them.")
    ] = "parquet",
    dtype: Annotated[
        Literal["float32", "float16", "int8", "binary"], typer.Option(help="Type of the vectors' values.")
    ] = "float32",
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", "-d", help="Number of values to keep of each vector.")
    ] = None,
    input_type: Annotated[str | None, typer.Option("--input-type", "-t", help="Prompt to add, as in document.")] = None,
    on_overflow: Annotated[
        OverflowPolicy, typer.Option(help="Treatment of a text that is too long for the model; error refuses its row.")
    ] = "truncate",
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 16384,
    on_null: Annotated[Literal["skip", "error"], typer.Option(help="Treatment of a row without a text.")] = "skip",
    max_rejected: Annotated[int, typer.Option(help="Rows that may be refused before the job ends.")] = 1000,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Begin anew, or go on with the job that the folder holds.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Count, estimate size and time, and write nothing.")] = False,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Compute here, or on a Ray cluster.")] = "local",
    device: Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Device to compute on.")] = None,
    backend: Annotated[
        BackendName | None, typer.Option(envvar="AKIDB_BACKEND", help="Library to compute with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write each event as a line of JSON.")] = False,
) -> None:
    """Embed a column of files of any size, in shards; the same command goes on with a job that was interrupted."""
    from akidb_mlx.bulk import embed_files as run

    with _listening(as_json) as listener:
        try:
            summary = run(
                inputs,
                output=output,
                model=model,
                column=column,
                id_column=id_column,
                keep=keep or (),
                format=format,
                dtype=dtype,
                dimensions=dimensions,
                input_type=input_type,
                on_overflow=on_overflow,
                shard_rows=shard_rows,
                on_null=on_null,
                max_rejected=max_rejected,
                fresh=fresh,
                dry_run=dry_run,
                engine=engine,
                device=device,
                backend=backend,
                listener=listener,
            )
        except KeyboardInterrupt:
            report(f"interrupted; the shards in {output} are whole, and the same command goes on after them")
            raise
    if not as_json:
        write_line(_describe(summary))
    elif dry_run:
        write_json({"event": "estimate", **summary.as_json()})


@contextmanager
def _listening(as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Yield what is told of each step: it writes JSON, or moves a bar on a terminal."""
    if as_json:
        yield write_json
    elif not sys.stderr.isatty():
        yield _Rows().note
    else:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn

        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
        with Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as bar:
            yield _Rows(bar).note


class _Rows:
    """Reports refused rows, and moves a progress bar where there is one."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._task: Any = None
        self._began = time.monotonic()
        self._tokens = self._cut = self._refused = 0

    def note(self, event: Event) -> None:
        """Take an event."""
        if event["event"] == "rejected":
            self._refused += 1
            if self._refused <= _SHOWN_ROWS:
                report(f"refused: {event['file']}, row {event['row']}: {event['reason']}")
            if self._refused == _SHOWN_ROWS:
                report("further refused rows are only written to rejected.jsonl")
        if self._bar is None:
            return
        if event["event"] == "begin":
            self._began = time.monotonic()
            self._task = self._bar.add_task("embedding", total=event["rows"], completed=event["done_rows"], detail="")
        elif event["event"] == "progress":
            self._tokens += event["tokens"]
            self._cut += event["truncated"]
            speed = self._tokens / max(time.monotonic() - self._began, 1e-9)
            detail = f"{speed:,.0f} tokens/s, {self._cut:,} cut"
            self._bar.update(self._task, advance=event["rows"], detail=detail)


def _describe(summary: BulkSummary) -> str:
    """Return the summary for a person."""
    size = f"{summary.bytes / 1e6:,.1f} MB"
    if summary.dry:
        return (
            f"{summary.rows:,} rows in {summary.shards:,} shards; about {summary.tokens:,} tokens, {size} of vectors "
            f"and {summary.seconds:,.0f} s on this machine; nothing was written"
        )
    return (
        f"{summary.embedded:,} of {summary.rows:,} rows in {summary.shards:,} shards in {summary.output}: "
        f"{summary.tokens:,} tokens, {summary.truncated:,} texts cut, {summary.skipped:,} rows without a text, "
        f"{summary.rejected:,} refused, {size}; {summary.computed:,} rows in {summary.seconds:,.1f} s"
    )
