"""Every error this package raises on purpose.

ModelCacheError
├── InvalidModelNameError     not a name that a path may be made from
├── ModelUnavailableError     nothing on this machine holds the model
└── CorruptModelError         the files are there and are not what they should be
"""

from __future__ import annotations


class ModelCacheError(Exception):
    """The root of the tree: catching it catches everything below."""


class InvalidModelNameError(ModelCacheError, ValueError):
    """The text is not `org/repo`, or the revision is not a branch, tag or commit; nothing was read or written."""


class ModelUnavailableError(ModelCacheError):
    """Nothing on this machine holds the model; the message says how to get it."""


class CorruptModelError(ModelCacheError):
    """A file of the model is missing or its SHA-256 is not the expected one."""
