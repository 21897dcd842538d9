"""The cache: from a model's name to the local directory that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_cache.errors import InvalidModelNameError, ModelUnavailableError
from model_cache.names import RepoName
from model_cache.packages import PACKAGES


def default_root() -> Path:
    """`$AKIDB_CACHE_DIR/models`, else `$XDG_CACHE_HOME/akidb/models`, else `~/.cache/akidb/models`."""
    if explicit := os.environ.get("AKIDB_CACHE_DIR"):
        return Path(explicit).expanduser() / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "akidb" / "models"


class ModelCache:
    """Resolves models by name. Nothing is created on disk before something has to be kept.

    Args:
        root: the folder that models lie in; `default_root()` if None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root

    def ensure(self, name: str, revision: str | None = None, *, download: bool = True) -> Path:
        """The directory that holds a model: a local directory as it is, else an installed model package.

        Args:
            name: a directory that holds a `config.json`, `org/repo` or `org/repo@revision`.
            revision: a branch, tag or commit; the same as in `name` when both are given.
            download: whether a model that is not on this machine may be fetched from the Hub.

        Raises:
            InvalidModelNameError: neither a directory nor a name that a repository could have.
            ModelUnavailableError: nothing on this machine holds it; the message says how to get it.
            CorruptModelError: an installed package's weights are not the published ones.
        """
        if not name:
            raise InvalidModelNameError("the name of a model must not be empty")
        directory = Path(name).expanduser()
        if (directory / "config.json").is_file():
            return directory.resolve()
        if directory.is_absolute() or directory.is_dir() or name.startswith((".", "~")):
            fault = "holds no config.json" if directory.is_dir() else "is not a directory"
            raise ModelUnavailableError(f"{directory} {fault}: expected the folder of a model")
        repo = RepoName.parse(name, revision)
        package = next((package for package in PACKAGES if package.repo_id == repo.repo_id), None)
        if package is None:
            why = "downloading is not implemented yet" if download else "downloading is switched off"
            raise ModelUnavailableError(
                f"{repo} is not on this machine and {why}: "
                "fetch the repository yourself and give its directory instead of the name"
            )
        folder = None if repo.revision else package.find()
        if folder is None:
            pinned = " at that revision" if repo.revision else ""
            raise ModelUnavailableError(f"{repo} is not on this machine{pinned}: {package.remedy}")
        package.verify(folder, record=self.root.parent / "verified.json")
        return folder

    @contextmanager
    def acquire(self, name: str, revision: str | None = None) -> Iterator[Path]:
        """`ensure()` as a context manager. What is resolved today belongs to its owner and is never evicted."""
        yield self.ensure(name, revision)
