"""`akidb-mlx export`, which writes a model in another format."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from akidb_mlx.catalog import CATALOG, find_record
from akidb_mlx.cli.output import check_output, write_json, write_line
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.settings import load_settings
from model_cache.files import list_names, select_needed


def export(
    model: Annotated[str, typer.Argument(help="Catalogue name, org/repo, org/repo@revision or directory of a model.")],
    to: Annotated[Literal["onnx"], typer.Option(help="Format to write.")] = "onnx",  # noqa: ARG001 - there is one
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=check_output,
            help="Folder to write a model of its own to. Default: beside the model, in its folder onnx.",
        ),
    ] = None,
    pooling: Annotated[bool, typer.Option(help="Include the pooling and the modules after it.")] = True,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale the vectors to length 1, for programs that do not.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Write an embedding model as an ONNX file in float32, for ONNX Runtime.

    Beside a model in the cache, the file is recorded, verified and evicted with it, and `--backend auto` uses it on a
    plain CPU.
    """
    from akidb_mlx.backends.onnx.export import check_exportable, export_model
    from akidb_mlx.checkpoint.checkpoint import read_checkpoint
    from akidb_mlx.checkpoint.onnx_files import EXPORTED, FOLDER, USUAL
    from akidb_mlx.checkpoint.prompts import choose_prompts
    from akidb_mlx.checkpoint.purpose import check_is_embedder
    from akidb_mlx.resolve import acquire_directory, beside

    check_exportable()
    if normalize and output is None:
        raise InvalidInputError("--normalize writes a file for other programs: name a folder for it with -o")
    settings = load_settings()
    with ExitStack() as resources:
        directory = acquire_directory(resources, model, CATALOG, settings, download=True)
        checkpoint = read_checkpoint(directory)
        record = CATALOG.get(model)
        card = record or find_record(model)
        if card is None and not settings.allow_unstated_pooling:
            check_is_embedder(checkpoint)
        prompts = choose_prompts(checkpoint.prompts, card.prompts if card else {})
        write = partial(
            export_model,
            checkpoint,
            prompts,
            pooled=pooling,
            normalized=normalize,
            matryoshka=record.matryoshka if record else None,
            dimensions=record.dimensions if record else None,
        )
        if output is None:
            with beside(model, directory, None, settings) as folder:
                made = write(folder / FOLDER / EXPORTED)
            files = [directory / FOLDER / file.name for file in made]
        else:
            for name in select_needed(list_names(directory)):
                if "/" in name or not name.endswith((".safetensors", ".safetensors.index.json")):
                    (output / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(directory / name, output / name)
            files = write(output / FOLDER / USUAL)
    if as_json:
        write_json({"files": [str(file) for file in files]})
    else:
        for file in files:
            write_line(str(file))
