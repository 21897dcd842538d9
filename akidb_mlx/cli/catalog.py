"""`akidb-mlx models`, which lists the models that are known by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from akidb_mlx.catalog import ALL_MODELS, Language, ModelRecord, Task
from akidb_mlx.cli.output import write_json, write_table


def models(
    task: Annotated[Task | None, typer.Option("--task", help="Only models for this task.")] = None,
    language: Annotated[
        Language | None, typer.Option("--language", "-l", help="Only models for this language; all take multilingual.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", min=1, help="Only models whose weights take no more bytes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON array.")] = False,
) -> None:
    """List the models that are known by name, and what their cards state. Any other is named as org/repo."""
    from rich.filesize import decimal

    found = [
        record
        for record in ALL_MODELS.values()
        if (task is None or record.task == task)
        and (language is None or language in record.languages or "multilingual" in record.languages)
        and (max_bytes is None or record.size <= max_bytes)
    ]
    if as_json:
        write_json([asdict(record) for record in found])
        return
    header = ("name", "task", "languages", "values", "tokens", "size", "licence", "")
    write_table(header, ((*_cells(record), decimal(record.size), *_words(record)) for record in found))


def _cells(record: ModelRecord) -> tuple[str, ...]:
    values = "-" if record.vector_size is None else str(record.vector_size)
    return record.name, record.task, " ".join(record.languages), values, str(record.max_tokens)


def _words(record: ModelRecord) -> tuple[str, str]:
    licence = record.licence if record.commercial_use else f"{record.licence} (no commercial use)"
    return licence, record.description
