"""The cache: from a model's name to the local directory that holds it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_cache import files, hub, locks
from model_cache.errors import (
    CorruptModelError,
    DiskSpaceError,
    DownloadError,
    InvalidModelNameError,
    ModelCacheError,
    ModelInUseError,
    ModelUnavailableError,
)
from model_cache.eviction import Candidate, EvictionPlan, plan_eviction
from model_cache.hub import Progress, RemoteModel
from model_cache.kinds import EMBEDDING, SPACY
from model_cache.names import RepoName, is_commit
from model_cache.packages import PACKAGES
from model_cache.progress import terminal_bar
from model_cache.record import CacheRecord
from model_cache.store import Store, StoredModel

logger = logging.getLogger(__name__)

# The share of its disk that the cache may take before it evicts, unless it is told a number of bytes.
_DISK_SHARE = 0.25
# Bytes that a download leaves free for everybody else.
_SPARE = 64 << 20
# Seconds for one download, whatever the network does.
_DOWNLOAD_S = 3600.0


def default_root() -> Path:
    """`$AKIDB_CACHE_DIR/models`, else `$XDG_CACHE_HOME/akidb/models`, else `~/.cache/akidb/models`."""
    if explicit := os.environ.get("AKIDB_CACHE_DIR"):
        return Path(explicit).expanduser() / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "akidb" / "models"


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache, for a person or a machine to read.

    Attributes:
        name: `org/repo@commit`.
        repo_id: the repository.
        commit: its 40 hexadecimal digits.
        refs: branches and tags that pointed to it when they were last asked for.
        path: its folder.
        size: bytes of its files.
        last_used: seconds since the epoch.
        pinned: whether eviction passes it over.
        in_use: whether a process has it open.
        damaged: names of files that are missing or of the wrong size.
        source: "hub", "hub-cache" or "files"; see `CacheRecord`.
        licence: what the repository declares.
    """

    name: str
    repo_id: str
    commit: str
    refs: tuple[str, ...]
    path: Path
    size: int
    last_used: float
    pinned: bool
    in_use: bool
    damaged: tuple[str, ...]
    source: str
    licence: str | None


# The class has a method called list.
CachedModels = list[CachedModel]
StoredModels = list[StoredModel]
Candidates = list[Candidate]


@contextmanager
def _system_errors_explained() -> Iterator[None]:
    """Make what the file system refuses one of the cache's own errors."""
    try:
        yield
    except OSError as error:
        raise ModelCacheError(
            f"the cache cannot be used: {error}; make it readable and writable, or set AKIDB_CACHE_DIR"
        ) from error


class ModelCache:
    """Resolves models by name, and keeps what it fetches. Nothing is made on disk before something has to be kept.

    Args:
        root: the folder that models lie in; `default_root()` if None.
        max_bytes: most bytes that models may take before the least recently used go; if None, `AKIDB_CACHE_MAX_BYTES`,
            else a quarter of the disk. 0 never evicts.
        download_timeout_s: seconds for one download.
        progress: makes what is told of a download's bytes, given a label and their number; if None, a bar where
            standard error is a terminal.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        max_bytes: int | None = None,
        download_timeout_s: float = _DOWNLOAD_S,
        progress: Callable[[str, int], AbstractContextManager[Progress | None]] = terminal_bar,
    ) -> None:
        self.root = default_root() if root is None else root
        self._max_bytes = _max_bytes_of_environment() if max_bytes is None else max_bytes
        self._download_timeout_s = download_timeout_s
        self._progress = progress
        self._store = Store(self.root)

    def ensure(self, name: str, revision: str | None = None, *, download: bool = True) -> Path:
        """The directory that holds a model, fetched if need be; see `acquire`, which also keeps it there."""
        with self.acquire(name, revision, download=download) as path:
            return path

    @contextmanager
    def acquire(self, name: str, revision: str | None = None, *, download: bool = True) -> Iterator[Path]:
        """The directory that holds a model, which no process removes inside.

        Looked for in this order: a local directory, this cache, the Hub's own cache, an installed model package, the
        Hub. What is complete costs no request.

        Args:
            name: a directory that holds a `config.json` (or `config.cfg`, a spaCy pipeline), `org/repo` or
                `org/repo@revision`.
            revision: a branch, tag or commit; the same as in `name` when both are given.
            download: whether the Hub may be asked for what is not on this machine.

        Raises:
            InvalidModelNameError: neither a directory nor a name that a repository could have.
            ModelUnavailableError: nothing that may be asked holds it; the message says how to get it.
            CorruptModelError: its files are damaged and could not be fetched again.
            DownloadError: the network failed.
            DiskSpaceError: there is no room for it.
        """
        if directory := _local_directory(name):
            yield directory
            return
        repo = RepoName.parse(name, revision)
        while True:
            found = self._resolve(repo, download)
            if isinstance(found, Path):
                yield found
                return
            with self._store.opened(found) as kept:
                if kept:
                    yield found.path
                    return

    @_system_errors_explained()
    def list(self) -> CachedModels:
        """What the cache holds, sorted by name."""
        return [_cached(model) for model in self._store.all()]

    @_system_errors_explained()
    def find(self, name: str, revision: str | None = None) -> CachedModels:
        """What the cache holds under a name, the one that `ensure` takes first.

        Raises:
            ModelUnavailableError: nothing.
        """
        return [_cached(model) for model in self._find(name, revision)]

    @_system_errors_explained()
    def update(self, name: str, *, dry_run: bool = False) -> tuple[str, str]:
        """Fetch what a repository's branch or tag points to now ("main" if `name` has no revision).

        Args:
            name: `org/repo` or `org/repo@revision`.
            dry_run: only ask.

        Returns:
            The commit that was here before ("" for none), and the one that the Hub has.
        """
        repo = RepoName.parse(name)
        repo = RepoName(repo.repo_id, repo.revision or "main")
        before = next((model.record.commit for model in self._store.find(repo)), "")
        _check_online(repo)
        if dry_run:
            return before, hub.describe(repo, time.monotonic() + self._download_timeout_s).commit
        return before, self._download(repo, afresh=True).record.commit

    @_system_errors_explained()
    def verify(self, name: str | None = None, revision: str | None = None) -> dict[str, tuple[str, ...]]:
        """Read every file of a model, or of all, and compare it with its recorded hash.

        Returns:
            For each model by name the files that are missing or changed.
        """
        models = self._store.all() if name is None else self._find(name, revision)
        return {model.name: tuple(model.record.damaged(model.path, hashes=True)) for model in models}

    @_system_errors_explained()
    def repair(self, name: str, revision: str | None = None) -> None:
        """Fetch the damaged files of a model again; name and revision as in `verify`.

        Raises:
            ModelInUseError: a process has it open.
            ModelCacheError: what fetching raises.
        """
        for model in self._find(name, revision):
            if model.record.damaged(model.path, hashes=True):
                repo = RepoName(model.record.repo_id, model.record.commit)
                _check_online(repo)
                self._download(repo, afresh=True)

    @_system_errors_explained()
    def pin(self, name: str, revision: str | None = None, *, pinned: bool = True) -> CachedModels:
        """Keep models from being evicted, or let them be again with `pinned=False`."""
        return [_cached(self._store.amend(model, pinned=pinned)) for model in self._find(name, revision)]

    @_system_errors_explained()
    def remove(self, name: str, revision: str | None = None) -> CachedModels:
        """Delete models, all commits of a repository where no revision is given.

        Returns:
            What is gone.

        Raises:
            ModelInUseError: one is pinned, or a process has it open; the others are gone.
        """
        gone, kept = [], []
        for model in self._find(name, revision):
            before = _cached(model)
            if not model.record.pinned and self._store.remove(model):
                gone.append(before)
            else:
                kept.append(f"{model.name} is {'pinned' if model.record.pinned else 'open in a process'}")
        if kept:
            raise ModelInUseError(f"not removed: {'; '.join(kept)}; unpin it or close it first")
        return gone

    def plan_prune(self, max_bytes: int | None = None) -> EvictionPlan:
        """What `prune` would delete; `max_bytes` instead of the cache's own bound."""
        return plan_eviction(self._candidates(), self._bound() if max_bytes is None else max_bytes)

    @_system_errors_explained()
    def prune(self, max_bytes: int | None = None, *, dry_run: bool = False) -> EvictionPlan:
        """Delete the least recently used models until the rest fit, except what is pinned or in use.

        Returns:
            What is gone, or would go.
        """
        plan = self.plan_prune(max_bytes)
        return plan if dry_run else self._execute(plan)

    @_system_errors_explained()
    def _resolve(self, repo: RepoName, download: bool) -> StoredModel | Path:
        """A model of this cache, or a directory that belongs to somebody else."""
        if model := self._whole(repo):
            return model
        damaged = next(iter(self._store.find(repo)), None)
        if damaged is not None:
            logger.warning("%s is damaged: %s is missing or cut off", damaged.name, damaged.damaged[0])
        if adopted := self._adopt(repo):
            return adopted
        package = next((package for package in PACKAGES if package.repo_id == repo.repo_id), None)
        if package is not None and not repo.revision and (folder := package.find()):
            package.verify(folder, record=self.root.parent / "verified.json")
            return folder
        if download and not hub.is_offline():
            if damaged is not None:
                repo = RepoName(repo.repo_id, damaged.record.commit)
            return self._download(repo)
        why = "HF_HUB_OFFLINE is set" if download else "downloading is switched off"
        if damaged is not None:
            raise CorruptModelError(
                f"{damaged.name} is damaged ({damaged.damaged[0]} is missing or cut off) and {why}: "
                "it is fetched again once that is allowed"
            )
        remedy = f"{package.remedy}, or " if package and not repo.revision else ""
        raise ModelUnavailableError(f"{repo} is not on this machine and {why}: {remedy}run `akidb-mlx pull {repo}`")

    def _whole(self, repo: RepoName) -> StoredModel | None:
        """The best model of this cache under a name that is not damaged."""
        return next((model for model in self._store.find(repo) if not model.damaged), None)

    def _adopt(self, repo: RepoName) -> StoredModel | Path | None:
        """A complete copy in the Hub's own cache, as hard links; used in place where those are not possible."""
        folder = hub.cached(repo)
        if folder is None or not is_commit(folder.name):
            return None
        try:
            incomplete = files.missing(folder) or files.truncated(folder) or hub.changed(folder)
        except (OSError, CorruptModelError, InvalidModelNameError) as error:
            logger.warning("the copy of %s in the Hub's cache is not used: %s", repo, error)
            return None
        if incomplete:
            logger.warning("the copy of %s in the Hub's cache is not used: %s is not whole", repo, incomplete[0])
            return None
        commit = folder.name
        refs = () if repo.revision == commit else (repo.revision or "main",)
        try:
            with self._store.fetching(repo, self._download_timeout_s):
                if model := self._whole(repo):
                    return model
                staged = self._store.staging(repo, commit)
                for name in files.needed(path.relative_to(folder).as_posix() for path in folder.rglob("*")):
                    if (folder / name).is_file():
                        _link(folder / name, staged / name)
                record = CacheRecord.of_files(staged, repo.repo_id, commit, "hub-cache", refs)
                return self._store.publish(staged, record)
        except (OSError, locks.LockTimeoutError) as error:
            logger.info("%s is used where the Hub's cache has it: %s", repo, error)
            return folder

    def _download(self, repo: RepoName, *, afresh: bool = False) -> StoredModel:
        """Fetch a model, unless another process does meanwhile; `afresh` asks the Hub even so."""
        deadline = time.monotonic() + self._download_timeout_s
        try:
            with self._store.fetching(repo, self._download_timeout_s):
                if not afresh and (model := self._whole(repo)):
                    return model
                return self._fetch(repo, hub.describe(repo, deadline), deadline)
        except locks.LockTimeoutError:
            raise DownloadError(
                f"another process has been fetching {repo} for {self._download_timeout_s:.0f} s"
            ) from None

    def _fetch(self, repo: RepoName, remote: RemoteModel, deadline: float) -> StoredModel:
        refs = () if repo.revision == remote.commit else (repo.revision or "main",)
        known = self._store.find(RepoName(repo.repo_id))
        for model in known:
            if model.record.commit == remote.commit and not model.record.damaged(model.path, hashes=True):
                return self._store.take_ref(model, refs[0]) if refs else model
        staged = self._store.staging(repo, remote.commit)
        _link_known(remote, known, staged)
        lacking = [file for file in remote.files if not file.is_at(staged / file.name)]
        to_come = sum(file.size - hub.received(file, staged) for file in lacking)
        self._make_room(repo, to_come, sum(file.size for file in remote.files))
        with self._progress(str(repo), sum(file.size for file in lacking)) as progress:
            for file in lacking:
                hub.fetch(remote, file, staged, deadline, progress)
        if incomplete := files.missing(staged) or files.truncated(staged):
            raise ModelUnavailableError(
                f"{repo} on the Hub is not a whole model: {incomplete[0]} is missing or cut off"
            )
        pinned = any(model.record.pinned for model in known if model.record.commit == remote.commit)
        record = CacheRecord.of_files(staged, repo.repo_id, remote.commit, "hub", refs, remote.licence)
        model = self._store.publish(staged, record.model_copy(update={"pinned": pinned}))
        return self._store.take_ref(model, refs[0]) if refs else model

    def _make_room(self, repo: RepoName, lacking: int, size: int) -> None:
        """Evict for what comes in, and refuse where the disk has no room for it."""
        plan = self._execute(plan_eviction(self._candidates(), self._bound(), incoming=size))
        for removal in plan.removals:
            logger.warning(
                "removed %s (%d bytes) to make room for %s: %s", removal.name, removal.size, repo, removal.reason
            )
        free = shutil.disk_usage(self.root).free
        if lacking + _SPARE > free:
            raise DiskSpaceError(
                f"{repo} needs {lacking} bytes (and {_SPARE} to spare) and the disk of {self.root} has {free} free: "
                "make room, or set AKIDB_CACHE_DIR to a folder on another disk",
                needed=lacking,
                free=free,
            )

    def _execute(self, plan: EvictionPlan) -> EvictionPlan:
        """Delete what a plan names; returns what is gone, since a model may have been opened meanwhile."""
        models = {model.name: model for model in self._store.all()}
        gone = tuple(one for one in plan.removals if one.name in models and self._store.remove(models[one.name]))
        kept = sum(one.size for one in plan.removals) - sum(one.size for one in gone)
        return EvictionPlan(gone, sum(one.size for one in gone), plan.short + kept)

    def _candidates(self) -> Candidates:
        return [Candidate(model.name, model.size, model.last_used, model.pinned, model.in_use) for model in self.list()]

    def _bound(self) -> int | None:
        if self._max_bytes is not None:
            return self._max_bytes or None
        existing = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return int(shutil.disk_usage(existing).total * _DISK_SHARE)

    def _find(self, name: str, revision: str | None) -> StoredModels:
        repo = RepoName.parse(name, revision)
        found = self._store.find(repo)
        if not found:
            raise ModelUnavailableError(f"{repo} is not in the cache ({self.root}): see `akidb-mlx list`")
        return found


def _local_directory(name: str) -> Path | None:
    """The directory that a name means, None where it is the name of a repository."""
    if not name:
        raise InvalidModelNameError("the name of a model must not be empty")
    if "\0" in name:
        raise InvalidModelNameError(f"{name!r} is neither a directory nor a repository: it holds a NUL")
    directory = Path(name).expanduser()
    # os.path, as it says False where a Path raises: in a working directory that may not be read.
    is_directory = os.path.isdir(directory)  # noqa: PTH112
    if any(os.path.isfile(directory / kind.marker) for kind in (EMBEDDING, SPACY)):  # noqa: PTH113
        return directory.resolve()
    if directory.is_absolute() or is_directory or name.startswith((".", "~")):
        fault = "holds no config.json" if is_directory else "is not a directory"
        raise ModelUnavailableError(f"{directory} {fault}: expected the folder of a model")
    return None


def _cached(model: StoredModel) -> CachedModel:
    record = model.record
    return CachedModel(
        name=model.name,
        repo_id=record.repo_id,
        commit=record.commit,
        refs=record.refs,
        path=model.path,
        size=record.size,
        last_used=model.last_used,
        pinned=record.pinned,
        in_use=locks.is_held(model.lock),
        damaged=model.damaged,
        source=record.source,
        licence=record.licence,
    )


def _check_online(repo: RepoName) -> None:
    if hub.is_offline():
        raise ModelUnavailableError(f"HF_HUB_OFFLINE is set, so the Hub is not asked for {repo}: unset it")


def _link_known(remote: RemoteModel, known: list[StoredModel], staged: Path) -> None:
    """Take the files that another commit, or the damaged one, has already."""
    for file in remote.files:
        for model in known:
            mine = model.record.files.get(file.name)
            same = mine is not None and file.sha256 == mine.sha256 and not (staged / file.name).exists()
            if same and file.is_at(model.path / file.name):
                _link(model.path / file.name, staged / file.name)


def _link(source: Path, target: Path) -> None:
    """The same file under another name, without a second copy on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source.resolve(), target)


def _max_bytes_of_environment() -> int | None:
    text = os.environ.get("AKIDB_CACHE_MAX_BYTES")
    if not text:
        return None
    if not text.isdecimal():
        raise ModelCacheError(f"AKIDB_CACHE_MAX_BYTES must be a number of bytes, or 0 for no limit, found {text!r}")
    return int(text)
