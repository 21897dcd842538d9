"""Every error this package raises on purpose.

ModelCacheError
├── InvalidModelNameError     not a name that a path or an address may be made from
├── ModelUnavailableError     nothing that may be asked holds the model
├── DownloadError             the network failed for longer than it may
├── DiskSpaceError            there is not enough room for the model
├── CorruptModelError         the files are there and are not what they should be
└── ModelInUseError           the model is open somewhere, or pinned, and stays
"""

from __future__ import annotations


class ModelCacheError(Exception):
    """The root of the tree: catching it catches everything below."""


class InvalidModelNameError(ModelCacheError, ValueError):
    """A repository, revision or file name that the Hub could not have; nothing was read or written."""


class ModelUnavailableError(ModelCacheError):
    """Nothing that may be asked holds the model; the message says how to get it."""


class DownloadError(ModelCacheError):
    """The network failed for longer than it may; what was fetched is kept, and the next download goes on from there."""


class DiskSpaceError(ModelCacheError):
    """There is not enough room.

    Attributes:
        needed: bytes that would be written.
        free: bytes that the disk has left.
    """

    def __init__(self, message: str, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class CorruptModelError(ModelCacheError):
    """A file of the model is missing or is not the one that was published; the message names it."""


class ModelInUseError(ModelCacheError):
    """A process has the model open, or it is pinned, so it cannot be removed or replaced."""
