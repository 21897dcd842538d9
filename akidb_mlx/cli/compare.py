"""`akidb-mlx compare`, which tells whether the vectors of two models may be mixed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.cli.output import write_json, write_line, write_table
from akidb_mlx.settings import load_settings

if TYPE_CHECKING:
    from akidb_mlx.fidelity.comparing import Comparison

# The exit status where the vectors may not be mixed; 1 is a failure and 2 wrong usage.
NOT_INTERCHANGEABLE = 3


def compare(
    first: Annotated[str, typer.Argument(help="Catalogue name, org/repo, org/repo@revision or directory of a model.")],
    second: Annotated[str, typer.Argument(help="The other model.")],
    texts: Annotated[
        Path | None,
        typer.Option(help="File of texts, one on each line, or a .json array. Default: 320 texts in 30 languages."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, gpu or cpu. Default: the setting's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Tell whether vectors of two models may be mixed in one index; exit with status 3 if not."""
    from akidb_mlx.fidelity.comparing import compare, sample
    from akidb_mlx.fidelity.texts import default_texts, read_texts
    from akidb_mlx.service import EmbeddingService

    chosen = read_texts(texts) if texts else default_texts()
    settings = load_settings().model_copy(update={"known_answers": False})
    sampled = []
    for name in (first, second):
        with EmbeddingService(name, device=device, settings=settings) as service:
            sampled.append(sample(service, chosen))
    comparison = compare(*sampled)
    if as_json:
        write_json(asdict(comparison) | {"cosine": comparison.cosine and comparison.cosine.model_dump()})
    else:
        _write(comparison)
    if comparison.verdict != "interchangeable":
        raise typer.Exit(NOT_INTERCHANGEABLE)


def _write(comparison: Comparison) -> None:
    rows = []
    if comparison.cosine is not None and comparison.recall_at_10 is not None:
        cosine, recalls = comparison.cosine, comparison.recall_at_10
        rows += [
            ("mean cosine", f"{cosine.mean:.5f}", "mean"),
            ("worst cosine", f"{cosine.worst:.5f}", "worst"),
            (f"recall@10, queries by {comparison.first}", f"{recalls[0]:.4f}", "recall"),
            (f"recall@10, queries by {comparison.second}", f"{recalls[1]:.4f}", "recall"),
            *((f"mean cosine, prompt {name}", f"{value:.5f}", "mean") for name, value in comparison.prompts.items()),
        ]
    columns = ("figure", "found", *(f"least for {verdict}" for verdict in comparison.thresholds))
    bounds = [asdict(one) for one in comparison.thresholds.values()]
    write_table(columns, [(name, value, *(f"{one[key]:g}" for one in bounds)) for name, value, key in rows])
    for difference in comparison.differences:
        write_line(f"differs: {difference}")
    write_line(f"verdict: {comparison.verdict}")
