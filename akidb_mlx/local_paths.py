"""The paths that are written to, which lie on this machine."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.errors import InvalidInputError
from model_cache.names import is_url


def local_path(path: str | PathLike[str]) -> Path:
    """Return a path that is to be written; a URL would be taken for a folder of that name.

    Raises:
        InvalidInputError: it is a URL.
    """
    text = fspath(path)
    if is_url(text):
        raise InvalidInputError(f"{text[:200]} is a URL, and only files of this machine are written: name a local path")
    return Path(text)
