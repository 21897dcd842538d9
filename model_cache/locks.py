"""Locks between processes, which the system releases when their holder dies.

They are advisory `flock`s on files that only ever serve as locks. Some network file systems accept and ignore them;
`are_enforced` finds out. Others refuse them, which is an OSError that names the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_PAUSE_S = 0.05
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class LockTimeoutError(Exception):
    """Another process held the lock for longer than the time-out; whoever asked for the lock knows what that means."""


@contextmanager
def shared(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock that others may share.

    Args:
        path: the lock's file, created if it does not exist; of another user's, reading it is enough.
        timeout: seconds to wait.

    Raises:
        LockTimeoutError: another process held it exclusively for longer.
        OSError: the file cannot be opened, or its file system refuses locks.
    """
    with _held(path, fcntl.LOCK_SH, timeout) as held:
        if not held:
            raise LockTimeoutError(str(path))
        yield


@contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock exclusively.

    Args:
        path: the lock's file, created if it does not exist.
        timeout: seconds to wait.

    Raises:
        LockTimeoutError: another process held it, shared or exclusively, for longer.
        OSError: the file cannot be opened, or its file system refuses locks.
    """
    with _held(path, fcntl.LOCK_EX, timeout) as held:
        if not held:
            raise LockTimeoutError(str(path))
        yield


@contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock exclusively, unless any process holds it; yield whether it is held."""
    with _held(path, fcntl.LOCK_EX, 0) as held:
        yield held


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock now, shared or exclusively.

    The lock is taken for a moment, which another process that asks at the same time takes for use. So all who ask, and
    all who hold it exclusively, must exclude each other by another lock.
    """
    try:
        descriptor = _open(path, 0)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, path, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def are_enforced(folder: Path) -> bool:
    """Return whether the file system of a folder enforces locks: it must refuse a second lock on the same file."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-probe-") as file:
        path = Path(file.name)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return not (_try_lock(file.fileno(), path, fcntl.LOCK_EX) and _try_lock(descriptor, path, fcntl.LOCK_EX))
        finally:
            os.close(descriptor)


@contextmanager
def _held(path: Path, mode: int, timeout: float) -> Iterator[bool]:
    descriptor = _acquire(path, mode, timeout)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: Path, mode: int, timeout: float) -> int | None:
    """Return a descriptor that holds the lock, None if another process held it for longer than the time-out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    pause = _LONGEST_PAUSE_S / 32
    while True:
        descriptor = _open(path, os.O_CREAT)
        locked = current = False
        try:
            locked = _try_lock(descriptor, path, mode)
            # The previous holder may have removed the file, and a lock on a removed file excludes nobody.
            current = locked and _is_same_file(path, descriptor)
        finally:
            if not current:
                os.close(descriptor)
        if current:
            return descriptor
        if not locked:
            if time.monotonic() >= deadline:
                return None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _open(path: Path, flags: int) -> int:
    """Open a lock's file; where it cannot be written, reading it is enough for a lock on a local file system."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | flags, 0o666)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise error from None


def _try_lock(descriptor: int, path: Path, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
