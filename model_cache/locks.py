"""Locks between processes, released by the system when their holder dies.

They are advisory `flock`s on files that only ever serve as locks. Some network file systems accept and ignore them;
`are_kept` finds out.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.05


class LockTimeoutError(Exception):
    """Somebody else held the lock for longer than one would wait."""


@contextmanager
def shared(path: Path, timeout: float | None = None) -> Iterator[None]:
    """Hold a lock that others may share; its file's time of change says when it was last taken.

    Args:
        path: the lock's file, made if it is not there.
        timeout: seconds to wait; None waits for ever.

    Raises:
        LockTimeoutError: somebody held it alone for longer.
    """
    descriptor = _lock(path, fcntl.LOCK_SH, timeout)
    try:
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, timeout: float | None = None, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock alone; see `shared`.

    Args:
        path: the lock's file, made if it is not there.
        timeout: seconds to wait; 0 does not wait, None waits for ever.
        remove: delete the file before giving the lock up.
    """
    descriptor = _lock(path, fcntl.LOCK_EX, timeout)
    try:
        yield
        if remove:
            path.unlink()
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock now, shared or alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def are_kept(folder: Path) -> bool:
    """Whether the file system of a folder keeps locks: a second one on the same file must be refused."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-probe-") as file:
        descriptor = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            return not (_try(file.fileno(), fcntl.LOCK_EX) and _try(descriptor, fcntl.LOCK_EX))
        finally:
            os.close(descriptor)


def _lock(path: Path, kind: int, timeout: float | None) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Whoever held it before may have removed the file, and a lock on a removed file keeps nobody out.
        if _try(descriptor, kind) and _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)
        if deadline is not None and time.monotonic() >= deadline:
            raise LockTimeoutError(str(path))
        time.sleep(_POLL_S)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
