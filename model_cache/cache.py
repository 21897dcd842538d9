"""The facade of the package: models by name, on disk and in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from model_cache.cached_model import CachedModel, describe
from model_cache.config import CacheConfig, max_bytes_from_environment
from model_cache.download import Downloader, ProgressBar
from model_cache.errors import ModelInUseError, ModelUnavailableError
from model_cache.eviction import EvictionPlan, Evictor
from model_cache.folders import delete
from model_cache.names import RepoName
from model_cache.os_errors import translate_os_errors
from model_cache.progress import terminal_bar
from model_cache.resolver import Resolver, resolve_directory
from model_cache.store import Store
from model_cache.stored_model import StoredModel

_DOWNLOAD_TIMEOUT_S = 3600.0


# What is done about an encoder's weights, which an ONNX file holds too: "required" downloads those that are not there,
# "optional" leaves a model without weights as it is but downloads none so, "omitted" downloads a model without them.
Weights = Literal["required", "optional", "omitted"]

# ModelCache has a method called list, which hides the built-in type in its annotations.
CachedModels = list[CachedModel]
StoredModels = list[StoredModel]


class ModelCache:
    """A folder of models, looked up by name and downloaded if need be.

    Nothing is created on disk before there is something to keep.

    Args:
        root: the folder that models lie in; if None, `$AKIDB_CACHE_DIR/models`, else `$XDG_CACHE_HOME/akidb/models`,
            else `~/.cache/akidb/models`.
        max_bytes: most bytes that models may take before the least recently used are deleted; 0 for no limit. If None,
            `$AKIDB_CACHE_MAX_BYTES`, else a quarter of the disk.
        download_timeout_s: seconds for one download.
        progress: makes what is told of the bytes received, given a label and their total number; by default, a bar
            if standard error is a terminal.

    Raises:
        ModelCacheError: `$AKIDB_CACHE_MAX_BYTES` is needed and is not a number of bytes.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        max_bytes: int | None = None,
        download_timeout_s: float = _DOWNLOAD_TIMEOUT_S,
        progress: ProgressBar = terminal_bar,
    ) -> None:
        if root is None:
            self._config = CacheConfig.resolve(max_bytes=max_bytes)
        else:
            self._config = CacheConfig(root, max_bytes_from_environment() if max_bytes is None else max_bytes)
        self._store = Store(self.root)
        self._evictor = Evictor(self._store, self._config)
        self._downloader = Downloader(self._store, self._evictor, download_timeout_s, progress)
        self._resolver = Resolver(
            self._store, self._downloader, download_timeout_s, verified=self.root.parent / "verified.json"
        )

    def __repr__(self) -> str:
        return f"ModelCache({str(self.root)!r}, max_bytes={self._config.max_bytes})"

    @property
    def root(self) -> Path:
        """Return the folder that models lie in."""
        return self._config.root

    def ensure(self, name: str, revision: str | None = None, *, download: bool = True) -> Path:
        """Return the directory that holds a model, downloading it if need be.

        The arguments and errors are those of `acquire`, which also keeps the model from being removed.
        """
        with self.acquire(name, revision, download=download) as path:
            return path

    @contextmanager
    def acquire(
        self, name: str, revision: str | None = None, *, download: bool = True, weights: Weights = "required"
    ) -> Iterator[Path]:
        """Hold a model's directory, which no process removes inside the `with` block.

        Sources are tried in this order: a local directory, this cache, the Hub client's own cache, an installed model
        package, the Hub. A model that is complete on this machine costs no request.

        Args:
            name: a directory that holds a `config.json` (or `config.cfg`, a spaCy pipeline), `org/repo` or
                `org/repo@revision`; with `:file.gguf` behind it, that file alone.
            revision: a branch, tag or commit; the same as in `name` if both are given.
            download: whether the Hub may be asked for a model that is not on this machine.
            weights: what is done about an encoder's weights; see `Weights`.

        Yields:
            The directory; that of a GGUF file holds the file under its name in the repository.

        Raises:
            InvalidModelNameError: the name is neither a directory nor that of a possible repository.
            ModelUnavailableError: no allowed source has it; the message says how to get it.
            CorruptModelError: its files are damaged and could not be downloaded again.
            DownloadError: the network kept failing.
            DiskSpaceError: the disk has too little free space for it.
            CacheAccessError: the cache cannot be read or written.
            CacheLockedError: another process kept a lock.
        """
        if directory := resolve_directory(name):
            yield directory
            return
        repo = RepoName.parse(name, revision)
        while True:
            with ExitStack() as lease:
                with translate_os_errors():
                    model = self._resolver.resolve(repo, download=download, weights=weights != "omitted")
                    if isinstance(model, Path):
                        path: Path | None = model
                    else:
                        path = model.path if lease.enter_context(self._store.lease(model)) else None
                if path is not None:
                    if weights == "required" and isinstance(model, StoredModel) and model.lacks_weights:
                        self._fetch_weights(model, download)
                    yield path
                    return

    @translate_os_errors()
    def remote_files(self, name: str) -> tuple[str, ...]:
        """Ask the Hub which files `ensure` would download for a repository, and download none.

        Raises:
            InvalidModelNameError: the Hub can have no such repository.
            ModelUnavailableError: it has none, or it is not a supported model.
            DownloadError: the Hub cannot be reached.
        """
        return self._downloader.file_names(RepoName.parse(name))

    @translate_os_errors()
    def list(self) -> CachedModels:
        """Return the models in the cache, sorted by name."""
        return [describe(model) for model in self._store.all()]

    @translate_os_errors()
    def find(self, name: str, revision: str | None = None) -> CachedModels:
        """Return the models in the cache under a name, the one that `ensure` prefers first.

        Raises:
            ModelUnavailableError: there is none.
        """
        return [describe(model) for model in self._find(name, revision)]

    @translate_os_errors()
    def update(self, name: str, *, dry_run: bool = False) -> tuple[str, str]:
        """Download the commit that a repository's branch or tag points to now.

        Args:
            name: `org/repo`, which stands for its branch "main", or `org/repo@revision`.
            dry_run: only ask the Hub.

        Returns:
            The commit that was here before ("" for none), and the one that the Hub has.
        """
        repo = RepoName.parse(name)
        repo = RepoName(repo.repo_id, repo.revision or "main")
        before = next((model.record.commit for model in self._store.find(repo)), "")
        if dry_run:
            return before, self._downloader.latest_commit(repo)
        return before, self._downloader.download(repo, refresh=True).record.commit

    @translate_os_errors()
    def verify(self, name: str | None = None, revision: str | None = None) -> dict[str, tuple[str, ...]]:
        """Read every file of a model, or of all models, and compare it with its recorded hash.

        Returns:
            By model name, the files that are missing or changed. What is removed meanwhile is left out.
        """
        models = self._store.all() if name is None else self._find(name, revision)
        damaged = {model.name: _find_damaged(model) for model in models}
        return {name: files for name, files in damaged.items() if files is not None}

    @translate_os_errors()
    def repair(self, name: str, revision: str | None = None) -> None:
        """Download the damaged files of a model again.

        Raises:
            ModelInUseError: a process has it open.
            ModelCacheError: it could not be downloaded; see `acquire`.
        """
        for model in self._find(name, revision):
            if _find_damaged(model):
                self._downloader.download(RepoName(model.record.repo_id, model.record.commit), refresh=True)

    def _fetch_weights(self, model: StoredModel, download: bool) -> None:
        """Download the weights of a model that was downloaded without them."""
        if not download:
            raise ModelUnavailableError(
                f"{model.name} is here without its weights, for ONNX Runtime, and downloading is switched off: run "
                f"`akidb-mlx pull {model.name}`"
            )
        self.fetch_more(model.path)

    def fetch_more(self, directory: Path, wanted: re.Pattern[str] | None = None) -> None:
        """Download more files of a model in this cache, of the commit that it is of; they are verified like the others.

        Args:
            directory: the model's, as `acquire` yields it, and still held.
            wanted: pattern of their names; those that the model needs and does not have if None.

        Raises:
            ModelUnavailableError: the directory is not in this cache, the repository has no such file, or downloading
                is switched off.
            CorruptModelError: a file arrived with another hash than the Hub declares.
            DownloadError: the network kept failing.
            DiskSpaceError: the disk has too little free space.
            CacheAccessError: the cache cannot be written.
            CacheLockedError: another process kept a lock.
        """
        with self.attaching(directory) as folder, translate_os_errors():
            self._downloader.fetch_files(self._stored_at(directory), wanted, folder)

    @contextmanager
    def attaching(self, directory: Path) -> Iterator[Path]:
        """Add files that are made of a model in this cache to it, so that they are verified and removed with it.

        Args:
            directory: the model's, as `acquire` yields it, and still held.

        Yields:
            An empty folder to write the files to, under the names that they are to have below the directory.

        Raises:
            ModelUnavailableError: the directory is not in this cache.
            CacheAccessError: it cannot be written.
            CacheLockedError: another process kept a lock.
        """
        with translate_os_errors():
            model = self._stored_at(directory)
            folder = self._store.staging_folder(RepoName(model.record.repo_id), model.record.commit, new=True)
        try:
            yield folder
            with translate_os_errors():
                self._store.attach(model, folder)
                self._evictor.carry_out(self._evictor.plan())
        finally:
            delete(folder)

    @translate_os_errors()
    def pin(self, name: str, revision: str | None = None, *, pinned: bool = True) -> CachedModels:
        """Exempt models from eviction, or with `pinned=False` no longer; return them.

        Raises:
            ModelUnavailableError: there is none, or another process removed it meanwhile.
        """
        changed = [self._store.update_record(model, pinned=pinned) for model in self._find(name, revision)]
        present = [describe(model) for model in changed if model is not None]
        if not present:
            raise ModelUnavailableError(f"{name} was removed from the cache meanwhile ({self.root})")
        return present

    @translate_os_errors()
    def remove(self, name: str, revision: str | None = None) -> CachedModels:
        """Delete models: all commits of a repository if no revision is given.

        Returns:
            The models that were deleted, by another process perhaps.

        Raises:
            ModelInUseError: at least one is pinned or open in a process, and was kept; the others are deleted.
        """
        removed, kept = [], []
        for model in self._find(name, revision):
            before = describe(model)
            outcome = self._store.remove(model)
            if outcome in ("deleted", "gone"):
                removed.append(before)
            else:
                kept.append(f"{model.name} is {'pinned' if outcome == 'pinned' else 'open in a process'}")
        if kept:
            raise ModelInUseError(f"not removed: {'; '.join(kept)}; unpin it or close it first")
        return removed

    @translate_os_errors()
    def prune(self, max_bytes: int | None = None, *, dry_run: bool = False) -> EvictionPlan:
        """Delete the least recently used models until the others fit the limit, except those pinned or in use.

        Args:
            max_bytes: the limit, instead of the cache's own.
            dry_run: only plan.

        Returns:
            The models that were, or would be, deleted.
        """
        plan = self._evictor.plan(max_bytes)
        return plan if dry_run else self._evictor.carry_out(plan)

    def _stored_at(self, directory: Path) -> StoredModel:
        """Return the model of the cache in a directory.

        Raises:
            ModelUnavailableError: there is none.
        """
        model = next((model for model in self._store.all() if model.path.resolve() == directory.resolve()), None)
        if model is None:
            raise ModelUnavailableError(f"{directory} is not in the cache ({self.root}), and is not changed")
        return model

    def _find(self, name: str, revision: str | None) -> StoredModels:
        repo = RepoName.parse(name, revision)
        found = self._store.find(repo)
        if not found:
            raise ModelUnavailableError(f"{repo} is not in the cache ({self.root}): see `akidb-mlx list`")
        return found


def _find_damaged(model: StoredModel) -> tuple[str, ...] | None:
    """Return the files of a model that are missing or changed, None if it was removed."""
    with model.hold() as present:
        return tuple(model.record.find_damaged(model.path, check_hashes=True)) if present else None
