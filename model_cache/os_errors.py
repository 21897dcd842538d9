"""Errors of the file system, raised as errors of this package."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from model_cache.errors import CacheAccessError

_LONGEST = 300
_ELSEWHERE = "set AKIDB_CACHE_DIR to a folder"
_REMEDIES = (
    ((errno.EACCES, errno.EPERM), f"make it readable and writable, or {_ELSEWHERE} of your own"),
    ((errno.EROFS,), f"the file system is read-only: {_ELSEWHERE} that can be written"),
    ((errno.ENOSPC, errno.EDQUOT), f"free some space, or {_ELSEWHERE} on another disk"),
    (
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL),
        f"something else is in the place of a folder or file: move it away, or {_ELSEWHERE}",
    ),
    (
        (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
        f"the file system refuses locks: {_ELSEWHERE} on a local disk",
    ),
    ((errno.EMFILE, errno.ENFILE), "too many files are open: close some, or raise the limit (ulimit -n)"),
    ((errno.EIO, errno.ESTALE), f"the disk or the network file system fails: check it, or {_ELSEWHERE} on another one"),
    ((errno.ENOENT,), f"it is missing or was removed meanwhile: try again, or {_ELSEWHERE}"),
)


def explain(error: OSError) -> CacheAccessError:
    """Return the error that says what the system refused, where, and what to do."""
    remedy = next((text for numbers, text in _REMEDIES if error.errno in numbers), f"{_ELSEWHERE} on another disk")
    return CacheAccessError(f"the cache cannot be used: {str(error)[:_LONGEST]}; {remedy}")


@contextmanager
def translate_os_errors() -> Iterator[None]:
    """Raise a CacheAccessError in place of an error of the file system."""
    try:
        yield
    except OSError as error:
        raise explain(error) from error
