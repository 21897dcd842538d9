"""What a command reads: its arguments, files or standard input; and the progress of working through it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from akidb_mlx.errors import InvalidInputError

# A file's name that stands for standard input.
_STANDARD_INPUT = Path("-")


def read_texts(arguments: list[str] | None, files: list[Path] | None = None) -> list[str]:
    """The arguments, then each file as one text; without both, the lines of standard input.

    Raises:
        InvalidInputError: something cannot be read or is not UTF-8.
    """
    if arguments or files:
        return [*(arguments or ()), *map(read_content, files or ())]
    content = read_content()
    # Only a line feed ends a line, other separators are part of a text.
    return [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")] if content else []


def read_content(file: Path = _STANDARD_INPUT) -> str:
    """All of a file, or of standard input where it is called "-".

    Raises:
        InvalidInputError: it cannot be read, or is not UTF-8.
    """
    name = "standard input" if file == _STANDARD_INPUT else str(file)
    try:
        content = sys.stdin.buffer.read() if file == _STANDARD_INPUT else file.read_bytes()
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror}") from error


def in_slices(texts: list[str], size: int, label: str) -> Iterator[list[str]]:
    """The texts in slices, with a progress bar where a person waits for more than one."""
    slices = [texts[start : start + size] for start in range(0, len(texts), size)]
    if len(slices) < 2 or not sys.stderr.isatty():
        yield from slices
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=len(texts))
        for part in slices:
            yield part
            progress.advance(task, len(part))
