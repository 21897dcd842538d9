"""Where models lie below the cache's root, and how they come and go there.

org--repo/COMMIT/       a model's files and its record; appears whole, by a rename
org--repo/COMMIT.lock   shared by whoever has it open; its time of change is the last use
org--repo/download.lock held by whoever fetches; records.lock, by whoever changes a record
.staging/               what is being fetched
.trash/                 what is being deleted
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_cache import files, locks
from model_cache.errors import CorruptModelError, InvalidModelNameError, ModelInUseError
from model_cache.names import RepoName, is_commit
from model_cache.record import CacheRecord

logger = logging.getLogger(__name__)

# How long a lock is waited for that is never held for long.
_PATIENCE_S = 10.0
# When nobody will go on with an unfinished download any more.
_ABANDONED_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class StoredModel:
    """A model in the cache.

    Attributes:
        record: what is known of it.
        path: its folder.
        damaged: names of files that are missing or of the wrong size.
    """

    record: CacheRecord
    path: Path
    damaged: tuple[str, ...]

    @property
    def name(self) -> str:
        """`org/repo@commit`."""
        return f"{self.record.repo_id}@{self.record.commit}"

    @property
    def lock(self) -> Path:
        """The file that whoever has it open holds a shared lock on."""
        return self.path.with_name(f"{self.path.name}.lock")

    @property
    def last_used(self) -> float:
        """When it was last opened, in seconds since the epoch."""
        try:
            return self.lock.stat().st_mtime
        except OSError:
            return self.record.created


class Store:
    """The models below a root. Nothing is made on disk before something has to be kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, repo: RepoName) -> list[StoredModel]:
        """What is here under a name, the best match first.

        Without a revision, the commits that were "main" when they came go before others; among equals the newest goes
        first.
        """
        revision = repo.revision
        found = [
            model
            for model in self._in(self.root / repo.folder)
            if revision in (None, model.record.commit, *model.record.refs)
        ]
        return sorted(found, key=lambda model: ("main" in model.record.refs, model.record.created), reverse=True)

    def all(self) -> list[StoredModel]:
        """Every model, sorted by name."""
        folders = sorted(folder for folder in self.root.glob("*--*") if folder.is_dir())
        return [model for folder in folders for model in self._in(folder)]

    @contextmanager
    def opened(self, model: StoredModel) -> Iterator[bool]:
        """Keep a model from being removed. Yields False where it was removed before it could be kept."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.shared(model.lock, _PATIENCE_S))
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                logger.debug("%s cannot be locked, and so not be removed from here: %s", model.lock, error)
            yield model.path.is_dir()

    @contextmanager
    def fetching(self, repo: RepoName, timeout: float) -> Iterator[None]:
        """Be the only process that fetches a repository.

        Raises:
            LockTimeoutError: another has been fetching it for longer.
        """
        with locks.exclusive(self.root / repo.folder / "download.lock", timeout):
            self._clean_up(repo)
            yield

    def staging(self, repo: RepoName, commit: str) -> Path:
        """The folder in which a commit is put together; what an earlier attempt left is still in it."""
        folder = self.root / ".staging"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{repo.folder}@{commit}"
        if not locks.are_kept(folder):
            # Nothing keeps another process out, so what this one fetches must be its own.
            name += f"@{os.getpid()}-{os.urandom(4).hex()}"
        (folder / name).mkdir(exist_ok=True)
        return folder / name

    def publish(self, staged: Path, record: CacheRecord) -> StoredModel:
        """Make what was put together a model of the cache, in place of a damaged one.

        Raises:
            ModelInUseError: a damaged one has the place, and a process has it open.
        """
        record.write(staged)
        for name in record.files:
            files.sync(staged / name)
        files.sync(staged)
        path = self.root / record.repo_id.replace("/", "--") / record.commit
        model = StoredModel(record, path, ())
        try:
            with locks.exclusive(model.lock, _PATIENCE_S):
                if path.exists():
                    present = CacheRecord.read(path)
                    if present is not None and not present.damaged(path, hashes=True):
                        shutil.rmtree(staged)  # another process was faster
                        return StoredModel(present, path, ())
                    self._discard(path)
                staged.rename(path)
                files.sync(path.parent)
        except locks.LockTimeoutError:
            raise ModelInUseError(f"{model.name} is damaged and open in a process: close it and try again") from None
        return model

    def remove(self, model: StoredModel) -> bool:
        """Delete a model; False where a process has it open."""
        try:
            with locks.exclusive(model.lock, 0, remove=True):
                self._discard(model.path)
        except locks.LockTimeoutError:
            return False
        return True

    def amend(self, model: StoredModel, **changes: Any) -> StoredModel:
        """Change a model's record."""
        with locks.exclusive(model.path.parent / "records.lock", _PATIENCE_S):
            current = CacheRecord.read(model.path) or model.record
            record = current.model_copy(update=changes)
            record.write(model.path)
        return StoredModel(record, model.path, model.damaged)

    def take_ref(self, model: StoredModel, ref: str) -> StoredModel:
        """Note that a branch or tag points to a model now, and so to no other of its repository."""
        for other in self._in(model.path.parent):
            if other.path != model.path and ref in other.record.refs:
                self.amend(other, refs=tuple(name for name in other.record.refs if name != ref))
        if ref in model.record.refs:
            return model
        return self.amend(model, refs=(*model.record.refs, ref))

    def _in(self, folder: Path) -> Iterator[StoredModel]:
        """The models of one repository."""
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if is_commit(path.name) and path.is_dir():
                record = CacheRecord.read(path) or _rebuilt(path)
                if record is not None:
                    yield StoredModel(record, path, tuple(record.damaged(path)))

    def _discard(self, path: Path) -> None:
        """Delete a folder such that nobody sees half of it."""
        trash = self.root / ".trash"
        trash.mkdir(parents=True, exist_ok=True)
        moved = trash / f"{path.name}-{os.urandom(8).hex()}"
        path.rename(moved)
        _delete(moved)

    def _clean_up(self, repo: RepoName) -> None:
        """Delete what killed processes left: half deletions, and downloads that nothing can go on with."""
        for left in self.root.glob(".trash/*"):
            _delete(left)
        for staged in self.root.glob(".staging/*"):
            if time.time() - staged.stat().st_mtime > _ABANDONED_S:
                _delete(staged)
        finished = {model.record.commit for model in self._in(self.root / repo.folder) if not model.damaged}
        for staged in self.root.glob(f".staging/{repo.folder}@*"):
            if staged.name.split("@")[1] in finished and staged.name.count("@") == 1:
                _delete(staged)


def _rebuilt(path: Path) -> CacheRecord | None:
    """A record made of the files, where it was lost; None where they are not a whole model."""
    try:
        incomplete = files.missing(path) or files.truncated(path)
    except (CorruptModelError, InvalidModelNameError) as error:
        logger.warning("%s has no record and is passed over: %s", path, error)
        return None
    if incomplete:
        logger.warning("%s has no record and is passed over: %s is missing or cut off", path, incomplete[0])
        return None
    repo_id = path.parent.name.replace("--", "/", 1)
    record = CacheRecord.of_files(path, repo_id, path.name, "files")
    logger.warning("%s had no usable record; it was made anew from the files", path)
    try:
        record.write(path)
    except OSError as error:
        logger.warning("the record of %s cannot be written: %s", path, error)
    return record


def _delete(path: Path) -> None:
    """Delete a folder or file; what cannot be deleted now is left for the next time."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s cannot be deleted: %s", path, error)
