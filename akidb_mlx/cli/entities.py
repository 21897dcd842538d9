"""`akidb-mlx entities`: the named entities of texts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.cli.inputs import in_slices, read_texts

if TYPE_CHECKING:
    from akidb_mlx.entities import Entity

# Texts in one call: few enough for the progress bar to move.
_SLICE = 512
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_cyan", "bright_green", "bright_magenta")


def entities(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; the lines of standard input if none.")] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A file that is one text; - is standard input.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name, org/repo or directory of a model; else AKIDB_NER_MODEL."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", "-l", help="Take the model for it; auto: for each text; else AKIDB_NER_LANGUAGE."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="Only entities with this label; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find the named entities of texts.

    Colours them on a terminal, and writes a line for each into a pipe: number of the text, start, end, label and text,
    with tabs between.
    """
    from akidb_mlx.entities import EntityExtractor, count_labels  # here, for the other commands to start without it

    given = read_texts(texts, files)
    with EntityExtractor(model, language=language, labels=labels) as extractor:
        found = [one for part in in_slices(given, _SLICE, "entities") for one in extractor.extract_batch(part)]
        model_name = extractor.get_model_info()["model_name"]
    counts = count_labels(entity for one in found for entity in one)
    if as_json:
        plain = [[asdict(entity) for entity in one] for one in found]
        typer.echo(json.dumps({"model": model_name, "entities": plain, "counts": counts}))
    elif sys.stdout.isatty():
        _print_coloured(given, found, counts)
    else:
        for index, one in enumerate(found):
            for entity in one:
                shown = " ".join(entity.text.split())  # a tab or line feed inside would break the line
                typer.echo(f"{index}\t{entity.start}\t{entity.end}\t{entity.label}\t{shown}")


def _print_coloured(texts: list[str], found: list[list[Entity]], counts: dict[str, int]) -> None:
    from rich.console import Console
    from rich.text import Text

    colours = {label: _COLOURS[rank % len(_COLOURS)] for rank, label in enumerate(counts)}
    console = Console()
    for text, one in zip(texts, found, strict=True):
        shown, position = Text(), 0
        for entity in one:
            shown.append(text[position : entity.start])
            shown.append(entity.text, style=f"bold {colours[entity.label]}")
            shown.append(f" {entity.label}", style=f"dim {colours[entity.label]}")
            position = entity.end
        console.print(shown.append(text[position:]), soft_wrap=True)
    if counts:
        console.print(Text("  ").join(Text(f"{label} {count}", colours[label]) for label, count in counts.items()))
