"""The texts that a command reads: its arguments, files and standard input."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from akidb_mlx.errors import InvalidInputError

# A file's name that stands for standard input.
_STANDARD_INPUT = Path("-")
# Bytes that are asked of standard input at a time.
_READ_BYTES = 1 << 16
# Bytes of lines that fill a slice, however few they are.
_SLICE_BYTES = 1 << 20
# Most bytes of one line, which is in memory as a whole.
_MAX_LINE_BYTES = 64 << 20
# Seconds that a line may wait for others to share its slice; a program may be waiting for the answer.
_MAX_WAIT_S = 0.05


@dataclass(frozen=True)
class TextSource:
    """The texts that a command works through.

    Attributes:
        slices: the texts in order, some at a time, read when they are asked for.
        total: how many there are; None for lines of standard input, which nobody has counted.
    """

    slices: Iterator[list[str]]
    total: int | None

    def name_text(self, index: int) -> str:
        """Return the name of a text in an error."""
        return f"line {index + 1} of standard input" if self.total is None else f"text {index}"


def open_texts(arguments: list[str] | None, files: list[Path] | None = None, *, slice_size: int) -> TextSource:
    """Return the arguments, then each file as one text; without both, the lines of standard input.

    Args:
        arguments: texts of the command line.
        files: files, which are read at once.
        slice_size: most texts in a slice.

    Raises:
        InvalidInputError: a file cannot be read or is not UTF-8. A line of standard input that is not raises it when
            its turn comes, after the lines before it.
    """
    if not arguments and not files:
        return TextSource(_slice_lines(slice_size), total=None)
    texts = [*(arguments or ()), *map(read_content, files or ())]
    starts = range(0, len(texts), slice_size)
    return TextSource((texts[start : start + slice_size] for start in starts), len(texts))


def read_content(file: Path = _STANDARD_INPUT) -> str:
    """Return all of a file, or of standard input where it is called "-", without a byte order mark before it.

    Raises:
        InvalidInputError: it cannot be read, or is not UTF-8.
    """
    name = "standard input" if file == _STANDARD_INPUT else str(file)
    try:
        content = _standard_input().read() if file == _STANDARD_INPUT else file.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror or error}") from error


def _slice_lines(slice_size: int) -> Iterator[list[str]]:
    """Yield the lines of standard input in slices, each when it is full or has waited for long enough."""
    texts: list[str] = []
    size = number = 0
    try:
        for line in _read_lines():
            if line is not None:
                number += 1
                texts.append(_decode_line(line, number))
                size += len(line)
            if texts and (line is None or len(texts) == slice_size or size >= _SLICE_BYTES):
                yield texts
                texts, size = [], 0
    except InvalidInputError:
        if texts:
            yield texts
        raise
    if texts:
        yield texts


def _decode_line(line: bytes, number: int) -> str:
    try:
        # Some programs put a byte order mark before the first line; elsewhere it is part of a text.
        return line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"line {number} of standard input is not UTF-8: {error}") from error


def _read_lines() -> Iterator[bytes | None]:
    """Yield each line of standard input, and None whenever a line has waited for `_MAX_WAIT_S` and no other is there.

    Only a line feed ends a line; other separators are part of a text.
    """
    unfinished = bytearray()
    number = 1
    due: float | None = None
    while True:
        # What is there already is read even when a line is due, so that a fast producer's slices are full.
        block = _read_block(None if due is None else max(0.0, due - time.monotonic()))
        if block is None:
            due = None
            yield None
            continue
        if not block:
            break
        head, *others = block.split(b"\n")
        unfinished += head
        if len(unfinished) > _MAX_LINE_BYTES:
            raise InvalidInputError(
                f"line {number} of standard input is longer than {_MAX_LINE_BYTES >> 20} MB: end each text with a line "
                "feed, or cut it"
            )
        if others:
            number += len(others)
            due = due or time.monotonic() + _MAX_WAIT_S
            yield bytes(unfinished)
            yield from others[:-1]
            unfinished = bytearray(others[-1])
    if unfinished:
        yield bytes(unfinished)


def _read_block(timeout: float | None) -> bytes | None:
    """Return what standard input has, b"" at its end, or None if nothing comes within `timeout` seconds."""
    try:
        descriptor = _standard_input().fileno()
        if not select.select([descriptor], [], [], timeout)[0]:
            return None
        return os.read(descriptor, _READ_BYTES)
    except OSError as error:
        raise InvalidInputError(f"standard input cannot be read: {error.strerror or error}") from error


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # the process was started with descriptor 0 closed
        raise InvalidInputError("standard input is closed: pass texts as arguments, or redirect a file into it")
    return sys.stdin.buffer
