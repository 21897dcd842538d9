"""Writing of results to standard output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

# The exit status of a program that a closed pipe ends, as shells report it (128 + SIGPIPE).
_CLOSED_PIPE = 141


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def write(text: str) -> None:
    """Write text to standard output and flush it. Nothing is written if the process was started with it closed.

    Raises:
        typer.Exit: the reader has closed its end, which ends the command quietly, or the text cannot be written, which
            is reported.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        raise typer.Exit(_CLOSED_PIPE) from None
    except OSError as error:
        _discard_output()
        typer.echo(f"akidb-mlx: standard output cannot be written: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def write_line(line: str = "") -> None:
    """Write a line to standard output; see `write`."""
    write(f"{line}\n")


def write_rich(content: RenderableType, *, wrap: bool = True) -> None:
    """Write a table or a coloured text to standard output; see `write`."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(content, soft_wrap=not wrap)
    write(captured.get())


def _discard_output() -> None:
    """Discard what is still buffered, on which the interpreter would fail when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
