"""What a command reads: its arguments, files or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from akidb_mlx.errors import InvalidInputError


def read_texts(arguments: Sequence[str] | None, files: Sequence[Path] | None = None) -> list[str]:
    """The arguments, and the lines of the files; the lines of standard input where there is neither.

    Raises:
        InvalidInputError: a file cannot be read, or is not UTF-8.
    """
    if arguments or files:
        return [*(arguments or ()), *(line for file in files or () for line in _lines(read_content(file)))]
    return _lines(read_content())


def read_content(file: Path | None = None) -> str:
    """All of a file, or of standard input.

    Raises:
        InvalidInputError: it cannot be read, or is not UTF-8.
    """
    name = str(file) if file else "standard input"
    try:
        return (file.read_bytes() if file else sys.stdin.buffer.read()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror}") from error


def _lines(content: str) -> list[str]:
    """Only a line feed ends a line; other separators are part of a text."""
    return [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")] if content else []
