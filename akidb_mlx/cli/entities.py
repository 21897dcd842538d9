"""`akidb-mlx entities`, which finds the named entities of texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.cli.escapes import escape
from akidb_mlx.cli.inputs import open_texts
from akidb_mlx.cli.output import is_terminal, write_json, write_rows, write_styled
from akidb_mlx.cli.slices import map_slices

if TYPE_CHECKING:
    from akidb_mlx.entities import Entity

# Texts in one call: few enough for the progress bar to move.
_SLICE = 512
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_cyan", "bright_green", "bright_magenta")


def entities(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to search; without any, each line of standard input is one.")
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="File to read as one text; - is standard input. May be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name, org/repo or directory of the model. Default: AKIDB_NER_MODEL."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            "-l",
            help="Language to choose the model for; auto detects it in each text. Default: AKIDB_NER_LANGUAGE.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="Keep only entities with this label. May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object, at the end.")] = False,
) -> None:
    """Find the named entities of texts.

    Shows them in colour on a terminal. Into a pipe or a file, writes a line for each entity as soon as it is found: the
    number of the text, start, end, label and text, separated by tabs.
    """
    from akidb_mlx.entities import EntityExtractor  # here, for the other commands to start without it

    source = open_texts(texts, files, slice_size=_SLICE)
    for_person = is_terminal() and not as_json
    kept: list[list[Entity]] = []
    labels_found: Counter[str] = Counter()
    number = 0
    with EntityExtractor(model, language=language, labels=labels) as extractor:
        for part, found in map_slices(extractor.extract_batch, source, bar_label=None if for_person else "entities"):
            labels_found.update(entity.label for entities in found for entity in entities)
            if as_json:
                kept += found
            elif for_person:
                _show(part, found, list(labels_found))
            else:
                write_rows(_row(number + index, entity) for index, one in enumerate(found) for entity in one)
            number += len(part)
        model_name = extractor.get_model_info()["model_name"]
    if as_json:
        plain = [[asdict(entity) for entity in one] for one in kept]
        write_json({"model": model_name, "entities": plain, "counts": dict(labels_found.most_common())})
    elif for_person and labels_found:
        _show_counts(labels_found)


def _row(number: int, entity: Entity) -> tuple[str, ...]:
    shown = " ".join(entity.text.split())  # easier to read than escaped tabs and line feeds
    return str(number), str(entity.start), str(entity.end), entity.label, shown


def _show(texts: list[str], found: list[list[Entity]], labels: list[str]) -> None:
    colours = _colours(labels)
    for text, entities in zip(texts, found, strict=True):
        shown: list[tuple[str, str]] = []
        position = 0
        for entity in entities:
            colour = colours[entity.label]
            shown += [(text[position : entity.start], ""), (entity.text, f"bold {colour}")]
            shown.append((f" {escape(entity.label)}", f"dim {colour}"))
            position = entity.end
        write_styled([*shown, (text[position:], "")])


def _show_counts(counts: Counter[str]) -> None:
    colours = _colours(list(counts))
    shown = [(f"{escape(label)} {count}  ", colours[label]) for label, count in counts.most_common()]
    write_styled(shown)


def _colours(labels: list[str]) -> dict[str, str]:
    """Return a colour for each label; those of the labels found so far stay when there are more."""
    return {label: _COLOURS[rank % len(_COLOURS)] for rank, label in enumerate(labels)}
