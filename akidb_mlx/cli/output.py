"""Everything that the commands write: results to standard output, messages to standard error.

What comes from outside - names, licences, labels, texts, errors - cannot act on the terminal: see `escapes`. JSON needs
no care, since all but printable ASCII is escaped in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from akidb_mlx.cli.escapes import escape, escape_text
from akidb_mlx.local_paths import local_path

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Column
    from rich.text import Text

# Parts of a text, each with the name of its style ("" for none).
Styled = Sequence[tuple[str, str]]


def check_output(folder: Path | None) -> Path | None:
    """Refuse a URL where a command is to write a folder, before any work is done.

    Raises:
        InvalidInputError: it is one.
    """
    return None if folder is None else local_path(folder)


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def report(message: str) -> None:
    """Write a message to standard error, on one line."""
    sys.stderr.write(f"akidb-mlx: {escape(message)}\n")


def write_json(*values: object) -> None:
    """Write values as JSON, each on a line."""
    _write("".join(f"{json.dumps(value)}\n" for value in values))


def write_line(line: str) -> None:
    """Write one line."""
    _write(f"{escape(line)}\n")


def write_text(text: str) -> None:
    """Write a text, or a part of one, which may have several lines."""
    _write(escape_text(text))


def write_rows(rows: Iterable[Sequence[str]]) -> None:
    """Write rows for a program, their cells separated by tabs."""
    _write("".join("\t".join(map(escape, row)) + "\n" for row in rows))


def write_table(
    columns: Sequence[str | Column], rows: Iterable[Sequence[str | Styled]], *, header: bool = True
) -> None:
    """Write a table for a person on a terminal; elsewhere its rows only, whole and separated by tabs."""
    if not is_terminal():
        write_rows([["".join(text for text, _ in _styled(cell)) for cell in row] for row in rows])
        return
    from rich.table import Column, Table

    folding = (Column(column, overflow="fold") if isinstance(column, str) else column for column in columns)
    table = Table(*folding, box=None, pad_edge=False, show_header=header)
    for row in rows:
        table.add_row(*(_text([(escape(text), style) for text, style in _styled(cell)]) for cell in row))
    _write_rich(table)


def write_styled(parts: Styled) -> None:
    """Write a coloured text, which may have several lines, to a terminal."""
    _write_rich(_text([(escape_text(text), style) for text, style in parts]), wrap=False)


def _styled(cell: str | Styled) -> Styled:
    return [(cell, "")] if isinstance(cell, str) else cell


def _text(parts: Styled) -> Text:
    """Return escaped parts for rich, which finds no markup in them."""
    from rich.text import Text

    return Text.assemble(*parts)


def _write_rich(content: RenderableType, *, wrap: bool = True) -> None:
    from rich.console import Console

    Console().print(content, soft_wrap=not wrap)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
