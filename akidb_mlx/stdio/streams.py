"""The two streams between this process and its parent: lines of requests, and answers."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator

from akidb_mlx.runtime.descriptors import open_standard_descriptors

# Most bytes of one request, which is in memory as a whole.
MAX_LINE_BYTES = 64 << 20
# Seconds after which a process that waits looks whether its parent still lives.
LOOK_S = 0.5
_READ_BYTES = 1 << 16


def take_standard_streams() -> tuple[int, int]:
    """Return descriptors of their own for requests and answers.

    From then on standard input is empty, and whatever is printed to standard output, by Python or by a C library, goes
    to standard error.
    """
    open_standard_descriptors()
    # The command line opens standard output anew where it was closed, so that it cannot be written.
    requests, answers = os.dup(0), os.dup(sys.stdout.fileno())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    os.set_blocking(answers, True)
    return requests, answers


def read_lines(descriptor: int, ended: Callable[[], bool]) -> Iterator[bytes | None]:
    """Yield each line without its line feed, and None for one that is longer than `MAX_LINE_BYTES`.

    Args:
        descriptor: where lines come from.
        ended: asked again and again while none comes; nothing is read any more once it returns True.
    """
    line: bytearray | None = bytearray()
    while not ended():
        if not select.select([descriptor], [], [], LOOK_S)[0]:
            continue
        block = os.read(descriptor, _READ_BYTES)
        if not block:
            if line is None or line:
                yield line if line is None else bytes(line)
            return
        *finished, rest = block.split(b"\n")
        for part in finished:
            line = _extend(line, part)
            yield line if line is None else bytes(line)
            line = bytearray()
        line = _extend(line, rest)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of something, however little of it is taken at a time."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _extend(line: bytearray | None, part: bytes) -> bytearray | None:
    """Return a line with its next part; None for one that is too long, of which nothing is kept."""
    if line is None or len(line) + len(part) > MAX_LINE_BYTES:
        return None
    line += part
    return line
