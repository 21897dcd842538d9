"""The models below the cache's root: how they are found, added, changed and removed.

org--repo/COMMIT/       a model's files and its record; appears complete, by a rename
org--repo/COMMIT.lock   held shared by every process that has the model open; its modification time is the last use
org--repo/download.lock held by the process that downloads; records.lock, by one that changes a record
.staging/               models that are being downloaded
.trash/                 models that are being deleted
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

# Seconds to wait for a lock that is never held for long.
_LOCK_TIMEOUT_S = 10.0
# Seconds after which an unfinished download is given up and deleted.
_STAGING_MAX_AGE_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class StoredModel:
    """A model in the store.

    Attributes:
        record: what is known about it.
        path: its folder.
        damaged: names of files that are missing or of the wrong size.
    """

    record: CacheRecord
    path: Path
    damaged: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return `org/repo@commit`."""
        return f"{self.record.repo_id}@{self.record.commit}"

    @property
    def lock(self) -> Path:
        """Return the file on which every process that has the model open holds a shared lock."""
        return self.path.with_name(f"{self.path.name}.lock")

    @property
    def in_use(self) -> bool:
        """Return whether a process has the model open."""
        return locks.is_held(self.lock)

    @property
    def last_used(self) -> float:
        """Return when the model was last opened, in seconds since the epoch."""
        try:
            return self.lock.stat().st_mtime
        except OSError:
            return self.record.created


class Store:
    """The models below a root; nothing is created on disk before there is something to keep."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, repo: RepoName) -> list[StoredModel]:
        """Return the models under a name, the best match first.

        Without a revision, the commits that "main" pointed to go before others; among equals the newest goes first.
        """
        revision = repo.revision
        found = [
            model
            for model in self._models_in(self.root / repo.folder)
            if revision in (None, model.record.commit, *model.record.refs)
        ]
        return sorted(found, key=lambda model: ("main" in model.record.refs, model.record.created), reverse=True)

    def find_intact(self, repo: RepoName) -> StoredModel | None:
        """Return the best match under a name that is not damaged, if any."""
        return next((model for model in self.find(repo) if not model.damaged), None)

    def all(self) -> list[StoredModel]:
        """Return every model, sorted by name."""
        folders = sorted(folder for folder in self.root.glob("*--*") if folder.is_dir())
        return [model for folder in folders for model in self._models_in(folder)]

    @contextmanager
    def lease(self, model: StoredModel) -> Iterator[bool]:
        """Keep a model from being removed; yield False if it was removed before the lease began."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.shared(model.lock, _LOCK_TIMEOUT_S))
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                logger.debug("%s cannot be locked, so the model cannot be removed either: %s", model.lock, error)
            yield model.path.is_dir()

    @contextmanager
    def download_lock(self, repo: RepoName, timeout: float) -> Iterator[None]:
        """Be the only process that downloads a repository.

        Raises:
            LockTimeoutError: another process held the lock for longer.
        """
        with locks.exclusive(self.root / repo.folder / "download.lock", timeout):
            self._clean_up(repo)
            yield

    def staging_folder(self, repo: RepoName, commit: str) -> Path:
        """Return the folder to assemble a commit in; files of an interrupted attempt are still there."""
        folder = self.root / ".staging"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{repo.folder}@{commit}"
        if not locks.are_enforced(folder):
            # Nothing excludes another process, so each needs a folder of its own.
            name += f"@{os.getpid()}-{os.urandom(4).hex()}"
        (folder / name).mkdir(exist_ok=True)
        return folder / name

    def publish(self, staged: Path, record: CacheRecord) -> StoredModel:
        """Move an assembled model into the store, in place of a damaged one.

        Raises:
            ModelInUseError: a damaged one is in its place, and a process has it open.
        """
        record.write(staged)
        for name in record.files:
            files.sync(staged / name)
        files.sync(staged)
        path = self.root / record.repo_id.replace("/", "--") / record.commit
        model = StoredModel(record, path, ())
        try:
            with locks.exclusive(model.lock, _LOCK_TIMEOUT_S):
                if path.exists():
                    present = CacheRecord.read(path)
                    if present is not None and not present.find_damaged(path, check_hashes=True):
                        shutil.rmtree(staged)  # another process was faster
                        return StoredModel(present, path, ())
                    self._discard(path)
                staged.rename(path)
                files.sync(path.parent)
        except locks.LockTimeoutError:
            raise ModelInUseError(f"{model.name} is damaged and open in a process: close it and try again") from None
        return model

    def remove(self, model: StoredModel) -> bool:
        """Delete a model; return False, and leave it, if a process has it open."""
        try:
            with locks.exclusive(model.lock, 0, remove=True):
                self._discard(model.path)
        except locks.LockTimeoutError:
            return False
        return True

    def update_record(self, model: StoredModel, **changes: Any) -> StoredModel:
        """Change fields of a model's record."""
        with locks.exclusive(model.path.parent / "records.lock", _LOCK_TIMEOUT_S):
            current = CacheRecord.read(model.path) or model.record
            record = current.model_copy(update=changes)
            record.write(model.path)
        return StoredModel(record, model.path, model.damaged)

    def point_ref_to(self, model: StoredModel, ref: str) -> StoredModel:
        """Record that a branch or tag points to a model now, and so to no other of its repository."""
        for other in self._models_in(model.path.parent):
            if other.path != model.path and ref in other.record.refs:
                self.update_record(other, refs=tuple(name for name in other.record.refs if name != ref))
        if ref in model.record.refs:
            return model
        return self.update_record(model, refs=(*model.record.refs, ref))

    def _models_in(self, folder: Path) -> Iterator[StoredModel]:
        """Yield the models of one repository."""
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if is_commit(path.name) and path.is_dir():
                record = CacheRecord.read(path) or _rebuild_record(path)
                if record is not None:
                    yield StoredModel(record, path, tuple(record.find_damaged(path)))

    def _discard(self, path: Path) -> None:
        """Delete a folder so that no process sees half of it."""
        trash = self.root / ".trash"
        trash.mkdir(parents=True, exist_ok=True)
        moved = trash / f"{path.name}-{os.urandom(8).hex()}"
        path.rename(moved)
        _delete(moved)

    def _clean_up(self, repo: RepoName) -> None:
        """Delete what killed processes left: half deletions, and downloads that will not be continued."""
        for leftover in self.root.glob(".trash/*"):
            _delete(leftover)
        for staged in self.root.glob(".staging/*"):
            if time.time() - staged.stat().st_mtime > _STAGING_MAX_AGE_S:
                _delete(staged)
        published = {model.record.commit for model in self._models_in(self.root / repo.folder) if not model.damaged}
        for staged in self.root.glob(f".staging/{repo.folder}@*"):
            if staged.name.split("@")[1] in published and staged.name.count("@") == 1:
                _delete(staged)


def _rebuild_record(path: Path) -> CacheRecord | None:
    """Make a lost record again from the files; return None if they are not a complete model."""
    try:
        incomplete = files.find_incomplete(path)
    except (CorruptModelError, InvalidModelNameError) as error:
        logger.warning("%s has no record and is ignored: %s", path, error)
        return None
    if incomplete:
        logger.warning("%s has no record and is ignored: %s is missing or cut off", path, incomplete[0])
        return None
    repo_id = path.parent.name.replace("--", "/", 1)
    record = CacheRecord.from_files(path, repo_id, path.name, "files")
    logger.warning("%s had no usable record; it was rebuilt from the files", path)
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
