"""`akidb-mlx embed`: texts to vectors."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from akidb_mlx.cli.inputs import in_slices, read_texts
from akidb_mlx.options import EmbedOptions, OverflowPolicy
from akidb_mlx.service import EmbeddingService
from akidb_mlx.settings import DeviceName
from akidb_mlx.vectors import EmbeddingBatch

# Texts in one call: enough to sort by length with profit, few enough for the progress bar to move.
_SLICE = 1024
# Values of a vector that a person is shown.
_SHOWN = 4


def embed(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", envvar="AKIDB_MODEL", help="Catalogue name, org/repo, org/repo@revision or a directory."
        ),
    ],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; the lines of standard input if none.")] = None,
    input_type: Annotated[
        str | None, typer.Option("--input-type", "-t", help="query, document or one of the model's prompt names.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Literal prompt, instead of a named one.")] = None,
    dimensions: Annotated[int | None, typer.Option("--dimensions", "-d", help="Keep this many values.")] = None,
    normalize: Annotated[bool, typer.Option(help="Divide each vector by its length.")] = True,
    on_overflow: Annotated[OverflowPolicy, typer.Option(help="What happens to a text that is too long.")] = "truncate",
    device: Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Where MLX computes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Embed texts.

    Prints a table on a terminal, and into a pipe one JSON array of numbers for each text.
    """
    lines = read_texts(texts)
    options: EmbedOptions = {
        "input_type": input_type,
        "prompt": prompt,
        "dimensions": dimensions,
        "normalize": normalize,
        "on_overflow": on_overflow,
    }
    with EmbeddingService(model, device=device) as service:
        batches = [service.embed_detailed(part, **options) for part in in_slices(lines, _SLICE, "embedding")]
        dimension = batches[0].dimension if batches else service.get_model_info()["dimension"]
    if as_json:
        _print_json(model, dimension, batches)
    elif sys.stdout.isatty():
        _print_table(lines, batches)
    else:
        for batch in batches:
            for vector in batch.vectors.tolist():
                typer.echo(json.dumps(vector))
    cut = sum(sum(batch.truncated) for batch in batches)
    if cut:
        typer.echo(
            f"akidb-mlx: {cut} of {len(lines)} texts were cut to the model's limit (see --on-overflow)", err=True
        )


def _print_json(model: str, dimension: int, batches: list[EmbeddingBatch]) -> None:
    result = {
        "model": model,
        "dimension": dimension,
        "embeddings": [vector for batch in batches for vector in batch.vectors.tolist()],
        "token_counts": [count for batch in batches for count in batch.token_counts],
        "truncated": [flag for batch in batches for flag in batch.truncated],
    }
    typer.echo(json.dumps(result))


def _print_table(texts: list[str], batches: list[EmbeddingBatch]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("text", "tokens", f"first {_SHOWN} of {batches[0].dimension if batches else 0} values")
    rows = (
        (vector, count) for batch in batches for vector, count in zip(batch.vectors, batch.token_counts, strict=True)
    )
    for text, (vector, count) in zip(texts, rows, strict=True):
        table.add_row(escape(text[:60]), str(count), "  ".join(f"{value:+.4f}" for value in vector[:_SHOWN]))
    Console().print(table)
