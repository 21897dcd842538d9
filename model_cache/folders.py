"""Folders that other processes change at the same time: what they remove meanwhile is not there, and no error."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

# Each failure means that another process deleted an entry first.
_ATTEMPTS = 1000


def list_paths(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted; nothing if there is no such folder.

    Raises:
        OSError: it cannot be read, is no folder, or is behind a link that leads nowhere.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        if any(path.is_symlink() and not path.exists() for path in (folder, *folder.parents)):
            raise
        return []


def find_version(folder: Path) -> tuple[int, int, int] | None:
    """Return what tells a folder from another one that takes its place, None if there is none."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def age(folder: Path) -> float:
    """Return the seconds since a folder was changed, 0 if it is gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0


def delete(path: Path) -> None:
    """Delete a folder or file; what cannot be deleted is left, with a warning."""
    try:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            if not os.path.lexists(path):
                return
    except OSError as error:
        logger.warning("%s cannot be deleted: %s", path, error)


def delete_empty(folder: Path) -> None:
    """Delete a folder and those below it, unless there are files in them."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
