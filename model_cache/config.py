"""The cache's folder and size limit: what is given, else the environment's, else the defaults.

No other module reads `AKIDB_CACHE_DIR` and `AKIDB_CACHE_MAX_BYTES`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from model_cache.errors import ModelCacheError

_DEFAULT_DISK_SHARE = 0.25


def cache_dir_from_environment() -> Path | None:
    """Return the folder that `AKIDB_CACHE_DIR` names, None where it is unset or empty."""
    text = os.environ.get("AKIDB_CACHE_DIR")
    return Path(text) if text else None


def max_bytes_from_environment() -> int | None:
    """Return the limit that `AKIDB_CACHE_MAX_BYTES` sets, None where it is unset or empty.

    Raises:
        ModelCacheError: it is not a number of bytes.
    """
    text = os.environ.get("AKIDB_CACHE_MAX_BYTES")
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

    @classmethod
    def resolve(cls, cache_dir: Path | None = None, max_bytes: int | None = None) -> CacheConfig:
        """Fill in from the environment and the defaults what is not given.

        Args:
            cache_dir: the cache's folder, in whose `models/` the models lie; if None, `$AKIDB_CACHE_DIR`, else
                `$XDG_CACHE_HOME/akidb`, else `~/.cache/akidb`.
            max_bytes: most bytes that models may take; if None, `$AKIDB_CACHE_MAX_BYTES`, else a quarter of the disk.

        Raises:
            ModelCacheError: `$AKIDB_CACHE_MAX_BYTES` is needed and is not a number of bytes, or `~` has no meaning.
        """
        if cache_dir is None:
            cache_dir = cache_dir_from_environment() or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "akidb"
        if max_bytes is None:
            max_bytes = max_bytes_from_environment()
        try:
            return cls(cache_dir.expanduser() / "models", max_bytes)
        except RuntimeError as error:
            raise ModelCacheError(
                f"the cache's folder {str(cache_dir)[:200]!r} lies in a home directory that is not known: set HOME, or "
                "AKIDB_CACHE_DIR to an absolute path"
            ) from error

    def limit(self) -> int | None:
        """Return the most bytes that models may take, None where there is no limit."""
        if self.max_bytes is not None:
            return self.max_bytes or None
        existing = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return int(shutil.disk_usage(existing).total * _DEFAULT_DISK_SHARE)
