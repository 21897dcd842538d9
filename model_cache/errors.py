"""Every error this package raises on purpose.

ModelCacheError
├── InvalidModelNameError     a name that no path or address may be built from
├── ModelUnavailableError     no allowed source has the model
├── DownloadError             the network kept failing until the retries or the time ran out
├── UploadError               a file could not be pushed to the Hub
├── DiskSpaceError            the disk, or the cache's limit, has too little space for the model
├── CorruptModelError         files are missing or differ from those that were published
├── ModelInUseError           the model is open in a process, or pinned, and was kept
├── CacheAccessError          the cache's folder cannot be read, written or locked
└── CacheLockedError          another process kept a lock of the cache for too long

A message says what is wrong, what was found and what to do about it, on one line.
"""

from __future__ import annotations


class ModelCacheError(Exception):
    """The root of the tree: catching it catches everything below."""


class InvalidModelNameError(ModelCacheError, ValueError):
    """A repository, revision or file name that the Hub cannot have; nothing was read or written."""


class ModelUnavailableError(ModelCacheError):
    """No allowed source has the model; the message says how to get it."""


class DownloadError(ModelCacheError):
    """The network kept failing; what was received is kept, and the next download continues from there."""


class UploadError(ModelCacheError):
    """A file could not be pushed to the Hub; the message says why."""


class DiskSpaceError(ModelCacheError):
    """The disk, or the cache's limit, has too little space for the model.

    Attributes:
        needed: bytes that the download would write; for the limit, all bytes of the model.
        free: bytes that the disk has left; the limit, if the model is larger.
    """

    def __init__(self, message: str, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class CorruptModelError(ModelCacheError):
    """A file of the model is missing or differs from the one that was published; the message names it."""


class ModelInUseError(ModelCacheError):
    """The model is open in a process, or pinned, so it cannot be removed or replaced."""


def excerpt(text: str, limit: int = 160) -> str:
    """Return the beginning of a text from outside as it may stand in a message: printable, on one line."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:limit])
    return shown if len(text) <= limit else f"{shown}..."


class CacheAccessError(ModelCacheError):
    """The system refused to read, write or lock something in the cache; `__cause__` is its error."""


class CacheLockedError(ModelCacheError):
    """Another process kept a lock that is never held for long; the message says which."""
