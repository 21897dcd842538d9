"""The models below the cache's root: how they are found, added, changed and removed.

org--repo/COMMIT/       a model's files and its record; appears complete, by a rename
org--repo/COMMIT.lock   held shared by every process that has the model open; its modification time is the last use
org--repo/changes.lock  held for a moment by one that adds, removes or changes a model, or asks whether one is in use
org--repo/download.lock held by the process that downloads
.staging/               models that are being downloaded
.trash/                 models that are being deleted
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from model_cache import files, locks
from model_cache.errors import ModelInUseError, ModelUnavailableError
from model_cache.folders import age, delete, find_version, list_paths
from model_cache.names import RepoName, is_commit
from model_cache.record import CacheRecord, FileRecord
from model_cache.stored_model import LOCK_TIMEOUT_S, StoredModel, changing, read_model

logger = logging.getLogger(__name__)

# Seconds after which an unfinished download is given up and deleted.
_STAGING_MAX_AGE_S = 7 * 24 * 3600.0

Removal = Literal["deleted", "gone", "in use", "pinned"]


class Store:
    """The models below a root; nothing is created on disk before there is something to keep.

    What another process removes meanwhile is not there; it is no error. A model that cannot be read is passed over with
    a warning. A root or a repository's folder that cannot be read, or is no folder, is an OSError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, repo: RepoName) -> list[StoredModel]:
        """Return the models under a name, the best match first.

        Without a revision, the commits that "main" pointed to go before others; among equals the newest goes first.
        """
        revision = repo.revision
        found = [
            model
            for model in _models_in(self.root / repo.folder)
            if revision in (None, model.record.commit, *model.record.refs)
        ]
        return sorted(found, key=lambda model: ("main" in model.record.refs, model.record.created), reverse=True)

    def find_intact(self, repo: RepoName) -> StoredModel | None:
        """Return the best match under a name that is not damaged, if any."""
        return next((model for model in self.find(repo) if not model.damaged), None)

    def all(self) -> list[StoredModel]:
        """Return every model, sorted by name; a repository that cannot be read is passed over with a warning."""
        found: list[StoredModel] = []
        for folder in list_paths(self.root):
            if "--" in folder.name:
                try:
                    found += _models_in(folder)
                except OSError as error:
                    _warn_passed_over(folder, error)
        return found

    @contextmanager
    def lease(self, model: StoredModel) -> Iterator[bool]:
        """Keep a model from being removed, and note its use; yield False if it was removed before the lease began.

        Raises:
            CacheLockedError: another process kept the model's lock.
        """
        with model.hold() as present:
            if present:
                with suppress(OSError):  # of another user, who sees no later use than the last own one
                    os.utime(model.lock)
            yield present

    @contextmanager
    def download_lock(self, repo: RepoName, timeout: float) -> Iterator[None]:
        """Be the only process that downloads a repository.

        Raises:
            LockTimeoutError: another process held the lock for longer.
        """
        with locks.exclusive(self.root / repo.folder / "download.lock", timeout):
            self._clean_up(repo)
            yield

    def staging_folder(self, repo: RepoName, commit: str, *, new: bool = False) -> Path:
        """Return the folder to assemble a commit in.

        Files of an interrupted attempt are still there, unless it is to be a new folder.
        """
        folder = self.root / ".staging"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{repo.folder}@{commit}"
        if new or not locks.are_enforced(folder):
            # Where nothing excludes another process, each needs a folder of its own.
            name += f"@{os.getpid()}-{os.urandom(4).hex()}"
        (folder / name).mkdir(exist_ok=True)
        return folder / name

    def publish(self, staged: Path, record: CacheRecord) -> StoredModel:
        """Move an assembled model into the store, in place of a damaged one.

        The files of one that is there are hashed while its lock is shared, so others may open it. The exclusive lock is
        only taken to replace it, and only if it is still the one that was found damaged.

        Raises:
            ModelInUseError: a damaged one is in its place, and a process has it open.
            CacheLockedError: another process kept a lock.
        """
        for name in record.files:
            files.sync(staged / name)
        path = self.root / RepoName(record.repo_id).folder / record.commit
        model = StoredModel(record, path, ())
        while True:
            version = find_version(path)
            if version and (intact := _read_intact(model)):
                delete(staged)
                return intact
            with model.claim(LOCK_TIMEOUT_S) as claimed:
                if not claimed:
                    raise ModelInUseError(f"{model.name} is damaged and open in a process: close it and try again")
                if find_version(path) == version and (published := self._replace(staged, model)):
                    return published

    def remove(self, model: StoredModel) -> Removal:
        """Delete a model, unless it is pinned or a process has it open."""
        with model.claim() as claimed:
            if not claimed:
                return "in use"
            current = CacheRecord.read(model.path)
            if current and current.pinned:
                return "pinned"
            trashed = self._move_to_trash(model.path)
            model.lock.unlink(missing_ok=True)
        if trashed is None:
            return "gone"
        delete(trashed)
        return "deleted"

    def update_record(self, model: StoredModel, **changes: Any) -> StoredModel | None:
        """Change fields of a model's record; return None, and write nothing, if the model was removed meanwhile.

        Raises:
            CacheLockedError: another process kept the lock for changes.
        """
        with changing(model.path.parent):
            if not model.path.is_dir():
                return None
            current = CacheRecord.read(model.path) or model.record
            record = current.model_copy(update=changes)
            record.write(model.path)
        return StoredModel(record, model.path, model.damaged)

    def attach(self, model: StoredModel, folder: Path) -> None:
        """Move the files of a folder into a model's, where they replace those of the same names, and record them.

        Raises:
            CacheLockedError: another process kept the lock for changes.
            ModelUnavailableError: the model was removed meanwhile.
        """
        made = {name: FileRecord.of(folder / name) for name in files.list_names(folder)}
        with changing(model.path.parent):
            if not model.path.is_dir():
                raise ModelUnavailableError(f"{model.name} was removed from the cache meanwhile")
            current = CacheRecord.read(model.path) or model.record
            for name in made:
                files.sync(folder / name)
                (model.path / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(model.path / name)
            current.model_copy(update={"files": {**current.files, **made}}).write(model.path)

    def point_ref_to(self, model: StoredModel, ref: str) -> StoredModel:
        """Record that a branch or tag points to a model now, and so to no other of its repository."""
        for other in _models_in(model.path.parent):
            if other.path != model.path and ref in other.record.refs:
                self.update_record(other, refs=tuple(name for name in other.record.refs if name != ref))
        if ref in model.record.refs:
            return model
        return self.update_record(model, refs=(*model.record.refs, ref)) or model

    def _replace(self, staged: Path, model: StoredModel) -> StoredModel | None:
        """Put a model in its place; return None if another process was faster, as it may be where locks do nothing."""
        current = CacheRecord.read(model.path)
        # It may have been pinned since the record was made.
        record = model.record.model_copy(update={"pinned": current.pinned}) if current else model.record
        record.write(staged)
        trashed = self._move_to_trash(model.path) if model.path.exists() else None
        try:
            staged.rename(model.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return None
        files.sync(model.path.parent)
        if trashed is not None:
            delete(trashed)
        return StoredModel(record, model.path, ())

    def _move_to_trash(self, path: Path) -> Path | None:
        """Move a folder away in one step, so that no process sees half of it; return None if it is not there."""
        trash = self.root / ".trash"
        trash.mkdir(parents=True, exist_ok=True)
        moved = trash / f"{path.name}-{os.urandom(8).hex()}"
        try:
            path.rename(moved)
        except FileNotFoundError:
            return None
        return moved

    def _clean_up(self, repo: RepoName) -> None:
        """Delete what killed processes left: half deletions, and downloads that will not be continued."""
        try:
            for leftover in list_paths(self.root / ".trash"):
                delete(leftover)
            published = {model.record.commit for model in _models_in(self.root / repo.folder) if not model.damaged}
            for staged in list_paths(self.root / ".staging"):
                name, _, commit = staged.name.partition("@")
                if (name == repo.folder and commit in published) or age(staged) > _STAGING_MAX_AGE_S:
                    delete(staged)
        except OSError as error:
            logger.warning("what was left behind in %s cannot be looked at: %s", self.root, error)


def _models_in(folder: Path) -> list[StoredModel]:
    """Return the models of one repository."""
    found = []
    for path in list_paths(folder):
        if is_commit(path.name):
            try:
                model = read_model(path)
            except OSError as error:
                # What was removed meanwhile is not there; a link that leads nowhere is.
                if not isinstance(error, FileNotFoundError) or path.is_symlink():
                    _warn_passed_over(path, error)
            else:
                found += [model] if model else []
    return found


def _warn_passed_over(path: Path, error: OSError) -> None:
    logger.warning("%s is passed over: %s", path, error)


def _read_intact(model: StoredModel) -> StoredModel | None:
    """Return the model in the place of another if all its files have their recorded hashes."""
    with model.hold():
        present = CacheRecord.read(model.path)
        if present is None or present.find_damaged(model.path, check_hashes=True):
            return None
    return StoredModel(present, model.path, ())
