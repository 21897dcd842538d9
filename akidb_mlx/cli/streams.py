"""The standard streams of this program: in UTF-8 whatever the locale says, and free of control characters."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import BinaryIO, TextIO

import typer

from akidb_mlx.cli.escapes import escape, escape_around_sequences, escape_text
from akidb_mlx.cli.output import report
from akidb_mlx.runtime.descriptors import open_standard_descriptors

# The exit status of a program that a closed pipe ends, as shells report it (128 + SIGPIPE).
_CLOSED_PIPE = 141


def require_utf8() -> None:
    """Start this program anew in Python's UTF-8 mode where arguments and paths have another encoding.

    Python reads them before it runs any code. `LC_ALL=C` alone is UTF-8 mode already.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def open_streams() -> None:
    """Replace standard output and standard error, and lead logging and warnings to the latter, a line for each."""
    # Before a model's file takes the number of a closed descriptor, which others write to.
    open_standard_descriptors()
    # What was closed is still written to: standard output fails then, and nobody reads standard error.
    sys.stdout = _open(sys.stdout.buffer if sys.stdout else _to_null(os.O_RDONLY), _report_failure)
    sys.stderr = _open(sys.stderr.buffer if sys.stderr else _to_null(os.O_WRONLY), lambda _: None)
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter("akidb-mlx: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}"


class _Stream(io.TextIOWrapper):
    """A standard stream that escapes what is written, by whomever, and passes it on at once.

    Attributes:
        rich_proxied_file: the same stream for rich, which looks for this name; its colours pass.
    """

    rich_proxied_file: TextIO

    def __init__(self, buffer: BinaryIO, escaped: Callable[[str], str], on_failure: Callable[[OSError], None]) -> None:
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._escaped = escaped
        self._on_failure = on_failure

    def write(self, text: str, /) -> int:
        try:
            super().write(self._escaped(text))
            super().flush()
        except OSError as error:
            self._discard()
            self._on_failure(error)
        return len(text)

    def _discard(self) -> None:
        """Discard what is still buffered, on which the interpreter would fail when it exits."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


class _LineFormatter(logging.Formatter):
    """Writes a message on one line; the traceback that may follow it has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape(super().formatMessage(record))


def _open(buffer: BinaryIO, on_failure: Callable[[OSError], None]) -> _Stream:
    if isinstance(buffer, io.RawIOBase):  # PYTHONUNBUFFERED; such a stream loses what a full disk does not take
        buffer = io.BufferedWriter(buffer)
    opened = _Stream(buffer, escape_text, on_failure)
    opened.rich_proxied_file = _Stream(buffer, escape_around_sequences, on_failure)
    return opened


def _to_null(mode: int) -> BinaryIO:
    """Return a stream to the null device; opened for reading only, it fails when something is written."""
    return io.BufferedWriter(io.FileIO(os.open(os.devnull, mode), "w"))


def _report_failure(error: OSError) -> None:
    """End the command: quietly if the reader has closed its end, else with a line.

    Raises:
        typer.Exit: always.
    """
    if isinstance(error, BrokenPipeError):
        raise typer.Exit(_CLOSED_PIPE) from None
    report(f"standard output cannot be written: {error.strerror}")
    raise typer.Exit(1) from error
