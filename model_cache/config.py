"""The cache's folder and size limit: what is given, else the environment's, else the defaults.

No other module reads `AKIDB_CACHE_DIR` and `AKIDB_CACHE_MAX_BYTES`.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model_cache.errors import ModelCacheError
from model_cache.names import is_url

_DEFAULT_DISK_SHARE = 0.25


def cache_dir_from_environment() -> Path | None:
    """Return the folder that `AKIDB_CACHE_DIR` names, None where it is unset or empty.

    Raises:
        ModelCacheError: it is set in two cases to two folders.
    """
    text = _variable("AKIDB_CACHE_DIR")
    return Path(text) if text else None


def max_bytes_from_environment() -> int | None:
    """Return the limit that `AKIDB_CACHE_MAX_BYTES` sets, None where it is unset or empty.

    Raises:
        ModelCacheError: it is not a number of bytes, or set in two cases to two.
    """
    text = _variable("AKIDB_CACHE_MAX_BYTES")
    if not text:
        return None
    try:
        max_bytes = int(text)
    except ValueError:
        max_bytes = -1
    if max_bytes < 0:
        shown = repr(text) if len(text) <= 40 else f"{text[:40]!r}..."
        raise ModelCacheError(f"AKIDB_CACHE_MAX_BYTES must be a number of bytes, or 0 for no limit; found {shown}")
    return max_bytes


@dataclass(frozen=True)
class CacheConfig:
    """The folder of a cache and the bound on its size.

    Attributes:
        root: the folder that models lie in.
        max_bytes: most bytes that models may take; 0 for no limit, None for a quarter of the disk.
    """

    root: Path
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse a URL, for which a folder of that name would be made.

        Raises:
            ModelCacheError: the root is one.
        """
        if is_url(str(self.root)):
            raise ModelCacheError(
                f"the cache cannot be at {str(self.root)[:200]}, a URL: name a folder of this machine"
            )

    @classmethod
    def resolve(cls, cache_dir: Path | None = None, max_bytes: int | None = None) -> CacheConfig:
        """Fill in from the environment and the defaults what is not given.

        Args:
            cache_dir: the cache's folder, in whose `models/` the models lie; if None, `$AKIDB_CACHE_DIR`, else
                `$XDG_CACHE_HOME/akidb`, else `~/.cache/akidb`, else (HOME is unset, and the user has no name) a folder
                for temporary files that belongs to this user alone.
            max_bytes: most bytes that models may take; if None, `$AKIDB_CACHE_MAX_BYTES`, else a quarter of the disk.

        Raises:
            ModelCacheError: a variable that is needed is unusable, the folder is a URL, or there is no home folder
                where one is needed.
        """
        if cache_dir is None:
            cache_dir = cache_dir_from_environment() or _default_cache_dir()
        if max_bytes is None:
            max_bytes = max_bytes_from_environment()
        return cls(_expand(cache_dir) / "models", max_bytes)

    def limit(self) -> int | None:
        """Return the most bytes that models may take, None where there is no limit."""
        if self.max_bytes is not None:
            return self.max_bytes or None
        existing = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return int(shutil.disk_usage(existing).total * _DEFAULT_DISK_SHARE)


def _variable(name: str) -> str | None:
    """Return the value of a variable, which may be written in any case; None where it is unset or empty.

    Raises:
        ModelCacheError: it is there in two cases with two values, of which neither goes first.
    """
    found = {written: value for written, value in os.environ.items() if value and written.upper() == name}
    if len(set(found.values())) > 1:
        raise ModelCacheError(f"{' and '.join(sorted(found))} are one setting with two values: leave one out")
    return next(iter(found.values()), None)


def _default_cache_dir() -> Path:
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "akidb"
    try:
        return Path("~/.cache/akidb").expanduser()
    except RuntimeError:  # HOME is unset, and the user has no name, as in some containers
        return _private_temporary_folder()


def _private_temporary_folder() -> Path:
    """Return a folder for temporary files that belongs to this user alone; others could plant models in it else."""
    remedy = "set AKIDB_CACHE_DIR or XDG_CACHE_HOME to a folder for the cache"
    try:
        folder = Path(tempfile.gettempdir()) / f"akidb-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ModelCacheError(
            f"there is neither a home folder nor one for temporary files ({error}): {remedy}"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ModelCacheError(f"there is no home folder, and {folder} is open to other users: {remedy}")
    return folder


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ModelCacheError(
            f"the cache cannot be in {str(path)!r}, a home folder that is not known: set AKIDB_CACHE_DIR or "
            "XDG_CACHE_HOME to another folder"
        ) from error
