"""What a command reads: its arguments, files or standard input; and the progress of working through it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar where a person waits; what it yields is told how many steps of how many are done, None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def in_slices(texts: list[str], size: int, label: str) -> Iterator[list[str]]:
    """The texts in slices, with a progress bar where a person waits for more than one."""
    starts = range(0, len(texts), size)
    with progress_bar(label) if len(starts) > 1 else nullcontext() as progress:
        for start in starts:
            if progress is not None:
                progress(start, len(texts))
            yield texts[start : start + size]
