"""`akidb-mlx embed`, which turns texts into vectors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.cli.inputs import open_texts
from akidb_mlx.cli.output import is_terminal, report, write_json, write_table
from akidb_mlx.cli.slices import map_slices
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import EmbedOptions, OutputDtype, OverflowPolicy
from akidb_mlx.settings import BackendName, DeviceName

if TYPE_CHECKING:
    from akidb_mlx.quantized import Ranges
    from akidb_mlx.vectors import EmbeddingBatch

# Texts in one call: enough to sort by length with profit, few enough for the progress bar to move.
_SLICE = 1024
# Values of a vector that a person is shown, and characters of a text.
_SHOWN_VALUES, _SHOWN_CHARACTERS = 4, 38


def embed(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="AKIDB_MODEL",
            help="Catalogue name, org/repo, org/repo@revision or directory of the model, or openai:NAME for one of an "
            "OpenAI-compatible API.",
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to embed; without any, each line of standard input is one.")
    ] = None,
    input_type: Annotated[
        str | None,
        typer.Option(
            "--input-type", "-t", help="Prompt to add: query, document or another name that the model defines."
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt to add, word for word.")] = None,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", "-d", help="Number of values to keep of each vector.")
    ] = None,
    normalize: Annotated[bool, typer.Option(help="Scale each vector to length 1.")] = True,
    on_overflow: Annotated[
        OverflowPolicy, typer.Option(help="Treatment of a text that is too long for the model.")
    ] = "truncate",
    output_dtype: Annotated[
        OutputDtype, typer.Option(help="Type of the values; binary and ubinary are bits, eight to a byte.")
    ] = "float32",
    ranges: Annotated[
        Path | None,
        typer.Option(
            help="JSON file for int8 and uint8: a list of each value's lower bounds and one of its upper bounds."
        ),
    ] = None,
    device: Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Device to compute on.")] = None,
    backend: Annotated[
        BackendName | None, typer.Option(help="Library to compute with.", show_default="AKIDB_BACKEND")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of the API, for a model openai:NAME.", show_default="AKIDB_OPENAI_BASE_URL"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object, at the end.")] = False,
) -> None:
    """Embed texts.

    Shows a table on a terminal. Into a pipe or a file, writes one JSON array of numbers for each text, as soon as it is
    computed.
    """
    options: EmbedOptions = {
        "input_type": input_type,
        "prompt": prompt,
        "dimensions": dimensions,
        "normalize": normalize,
        "on_overflow": on_overflow,
        "output_dtype": output_dtype,
        "ranges": None if ranges is None else _read_ranges(ranges),
    }
    source = open_texts(texts, slice_size=_SLICE)
    for_person = is_terminal() and not as_json
    kept: list[EmbeddingBatch] = []
    count = cut = 0
    from akidb_mlx.service import EmbeddingService  # other commands need not wait for it

    with EmbeddingService(model, device=device, backend=backend, base_url=base_url) as service:
        work = partial(service.embed_detailed, **options)
        for part, batch in map_slices(work, source, bar_label=None if for_person else "embedding"):
            if as_json:
                kept.append(batch)
            elif for_person:
                _show(part, batch, header=count == 0)
            else:
                write_json(*batch.vectors.tolist())
            count += len(part)
            cut += sum(batch.truncated)
        dimension = kept[0].dimension if kept else service.get_model_info()["dimension"]
    if as_json:
        _write_json(model, dimension, kept)
    if cut:
        report(f"{cut} of {count} texts were cut to the model's limit (see --on-overflow)")


def _read_ranges(path: Path) -> Ranges:
    import numpy as np

    try:
        return np.array(json.loads(path.read_text(encoding="utf-8")), np.float32)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"{path} must hold two JSON lists of numbers of one length: {error}") from error


def _write_json(model: str, dimension: int, batches: list[EmbeddingBatch]) -> None:
    result = {
        "model": model,
        "dimension": dimension,
        "embeddings": [vector for batch in batches for vector in batch.vectors.tolist()],
        "token_counts": [count for batch in batches for count in batch.token_counts],
        "truncated": [flag for batch in batches for flag in batch.truncated],
    }
    write_json(result)


def _show(texts: list[str], batch: EmbeddingBatch, *, header: bool) -> None:
    from rich.table import Column

    # The widths are fixed, for the rows of one slice to stand under those of the one before.
    columns = (
        Column("text", width=_SHOWN_CHARACTERS, no_wrap=True),
        Column("tokens", width=6, justify="right"),
        Column(f"first {_SHOWN_VALUES} of {batch.vectors.shape[1]} values", width=9 * _SHOWN_VALUES - 2, no_wrap=True),
    )
    shown = "+.4f" if batch.vectors.dtype.kind == "f" else "+d"
    rows = (
        (
            text[:_SHOWN_CHARACTERS],
            str(count),
            "  ".join(format(value, shown) for value in vector[:_SHOWN_VALUES].tolist()),
        )
        for text, count, vector in zip(texts, batch.token_counts, batch.vectors, strict=True)
    )
    write_table(columns, rows, header=header)
