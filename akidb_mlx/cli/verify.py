"""`akidb-mlx verify`, which checks a model's files, and makes the known answers that are checked when it is loaded."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from akidb_mlx.catalog import CATALOG
from akidb_mlx.cli.models import repo_of
from akidb_mlx.cli.output import check_output, write_json, write_line
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.resolve import acquire_directory, beside, check_writable
from akidb_mlx.settings import load_settings


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models in the cache; without any, all of them.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Download damaged files again.")] = False,
    answers_from: Annotated[
        str | None,
        typer.Option(
            help="The original of one model: store its vectors of a few texts beside the model, which is asked for "
            "them whenever it is loaded."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", callback=check_output, help="Folder for the answers. Default: beside the weights."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="With --answers-from: auto, gpu or cpu.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Compare every file of a model with its recorded hash; or, with --answers-from, make its known answers."""
    if answers_from is not None:
        if len(names or ()) != 1 or repair:
            raise InvalidInputError("--answers-from takes one model, and not --repair")
        _make_answers((names or [])[0], answers_from, output, device, as_json)
        return
    if output is not None or device is not None:
        raise InvalidInputError("--output and --device go with --answers-from")
    cache = load_settings().open_cache()
    found: dict[str, tuple[str, ...]] = {}
    for name in names or [model.name for model in cache.list()]:
        found |= cache.verify(repo_of(name))
    for name, damaged in found.items():
        if damaged and repair:
            cache.repair(name)
    if as_json:
        write_json({name: {"damaged": list(damaged), "repaired": repair} for name, damaged in found.items()})
    else:
        for name, damaged in found.items():
            state = f"damaged: {', '.join(damaged)}{' (fetched again)' if repair else ''}" if damaged else "ok"
            write_line(f"{name}: {state}")
    if not repair and any(found.values()):
        raise typer.Exit(1)


def _make_answers(name: str, original: str, output: Path | None, device: str | None, as_json: bool) -> None:
    """Make the known answers of a model, in float32; the two are in memory one after the other."""
    from akidb_mlx.fidelity.answers import ANSWERS, write_answers
    from akidb_mlx.fidelity.making import make_answers, with_reached
    from akidb_mlx.service import EmbeddingService

    settings = load_settings()
    exact = settings.exact()
    with ExitStack() as resources:
        directory = acquire_directory(resources, name, CATALOG, settings, download=True)
        if output is None:
            check_writable(name, directory, settings)
        with EmbeddingService(original, device=device, settings=exact) as service:
            answers = make_answers(service)
        with EmbeddingService(
            name, device=device, settings=exact.model_copy(update={"known_answers": False})
        ) as service:
            answers = with_reached(answers, service)
        with beside(name, directory, output, settings) as folder:
            write_answers(answers, folder)
    path = (output or directory) / ANSWERS
    reached = [answer.cosine for answer in answers.answers]
    if as_json:
        write_json({"path": str(path), "original": answers.model, "texts": len(reached), "cosines": reached})
    else:
        write_line(
            f"{path}: {len(reached)} texts, cosine to {answers.model} {answers.cosine:.4f} (worst {min(reached):.4f})"
        )
