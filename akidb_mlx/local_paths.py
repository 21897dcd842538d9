"""The paths that are written to, which lie on this machine."""

from __future__ import annotations

import re
from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.errors import InvalidInputError

# With one slash too, which a Path leaves of two. A single letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path: str | PathLike[str]) -> Path:
    """Return a path that is to be written; a URL would be taken for a folder of that name.

    Raises:
        InvalidInputError: it is a URL.
    """
    text = fspath(path)
    if _URL.match(text):
        raise InvalidInputError(f"{text[:200]} is a URL, and only files of this machine are written: name a local path")
    return Path(text)
