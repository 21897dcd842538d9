"""Locks between processes, which the system releases when their holder dies.

They are advisory `flock`s on files that only ever serve as locks. Some network file systems accept and ignore them;
`are_enforced` finds out.
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
    """Another process held the lock for longer than the time-out."""


@contextmanager
def shared(path: Path, timeout: float | None = None) -> Iterator[None]:
    """Hold a lock that others may share; the modification time of its file says when it was last acquired.

    Args:
        path: the lock's file, created if it does not exist.
        timeout: seconds to wait; None waits for ever.

    Raises:
        LockTimeoutError: another process held it exclusively for longer.
    """
    descriptor = _acquire(path, fcntl.LOCK_SH, timeout)
    try:
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, timeout: float | None = None, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock exclusively.

    Args:
        path: the lock's file, created if it does not exist.
        timeout: seconds to wait; 0 does not wait, None waits for ever.
        remove: delete the file before releasing the lock.

    Raises:
        LockTimeoutError: another process held it, shared or exclusively, for longer.
    """
    descriptor = _acquire(path, fcntl.LOCK_EX, timeout)
    try:
        yield
        if remove:
            path.unlink()
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock now, shared or exclusively."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def are_enforced(folder: Path) -> bool:
    """Return whether the file system of a folder enforces locks: it must refuse a second lock on the same file."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-probe-") as file:
        descriptor = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            return not (_try_lock(file.fileno(), fcntl.LOCK_EX) and _try_lock(descriptor, fcntl.LOCK_EX))
        finally:
            os.close(descriptor)


def _acquire(path: Path, mode: int, timeout: float | None) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # The previous holder may have removed the file, and a lock on a removed file excludes nobody.
        if _try_lock(descriptor, mode) and _is_same_file(path, descriptor):
            return descriptor
        os.close(descriptor)
        if deadline is not None and time.monotonic() >= deadline:
            raise LockTimeoutError(str(path))
        time.sleep(_POLL_S)


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
