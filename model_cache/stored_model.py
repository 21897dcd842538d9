"""One model in the store: reading it from disk, and the locks that say who uses it.

Whoever has a model open holds its lock shared. Asking whether it is held means taking it, which a second process that
asks would take for use. So a repository's lock for changes goes round all that takes a model's lock exclusively: then
only those who have the model open can keep it from being taken.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from model_cache import files, locks
from model_cache.errors import CacheLockedError, CorruptModelError, InvalidModelNameError
from model_cache.kinds import ENCODER_WEIGHTS, can_omit_weights
from model_cache.names import RepoName
from model_cache.record import CacheRecord

logger = logging.getLogger(__name__)

# Seconds to wait for a lock that is never held for long.
LOCK_TIMEOUT_S = 10.0
_POLL_S = 0.05
# How file systems refuse locks.
_REFUSALS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
        """Return `org/repo@commit`, with the file behind it where the model is one."""
        return str(RepoName(self.record.repo_id, self.record.commit))

    @property
    def lacks_weights(self) -> bool:
        """Return whether the model was downloaded without its encoder's weights."""
        names = self.record.files
        return can_omit_weights(names) and not any(map(ENCODER_WEIGHTS.fullmatch, names))

    @property
    def lock(self) -> Path:
        """Return the file on which every process that has the model open holds a shared lock."""
        return self.path.with_name(f"{self.path.name}.lock")

    @property
    def in_use(self) -> bool:
        """Return whether a process has the model open; True, with a warning, if that cannot be found out."""
        try:
            if not self.lock.exists():
                return False
            with changing(self.path.parent):
                return locks.is_held(self.lock)
        except (OSError, CacheLockedError) as error:
            logger.warning("%s is taken to be in use: %s", self.name, error)
            return True

    @property
    def last_used(self) -> float:
        """Return when the model was last opened, in seconds since the epoch."""
        try:
            return self.lock.stat().st_mtime
        except OSError:
            return self.record.created

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Keep the model from being removed or replaced; yield False if it was removed before.

        A model whose lock cannot be opened is not locked: whoever may remove it can open the lock.

        Raises:
            CacheLockedError: another process kept the lock.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.shared(self.lock, LOCK_TIMEOUT_S))
            except locks.LockTimeoutError:
                raise CacheLockedError(
                    f"another process has been removing or replacing {self.name} for {LOCK_TIMEOUT_S:.0f} s: "
                    f"wait for it or end it (it holds {self.lock})"
                ) from None
            except OSError as error:
                if error.errno not in (*locks.FORBIDDEN, *_REFUSALS):
                    raise
                level = logging.DEBUG if error.errno in locks.FORBIDDEN else logging.WARNING
                logger.log(level, "%s is used without a lock: %s", self.name, error)
            yield self.path.is_dir()

    @contextmanager
    def claim(self, timeout: float = 0) -> Iterator[bool]:
        """Be the only process that uses the model; yield False if another one had it open until the time-out.

        Raises:
            CacheLockedError: another process kept the lock for changes.
        """
        deadline = time.monotonic() + timeout
        while True:
            with changing(self.path.parent), locks.try_exclusive(self.lock) as claimed:
                if claimed or time.monotonic() >= deadline:
                    yield claimed
                    return
            time.sleep(_POLL_S)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Be the only process that adds, removes or changes models of a repository, or asks whether one is in use.

    Raises:
        CacheLockedError: another process kept the lock.
    """
    path = folder / "changes.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.exclusive(path, LOCK_TIMEOUT_S))
        except locks.LockTimeoutError:
            raise CacheLockedError(
                f"another process has been changing models in {folder} for {LOCK_TIMEOUT_S:.0f} s: "
                f"wait for it or end it (it holds {path})"
            ) from None
        yield


def read_model(path: Path) -> StoredModel | None:
    """Return the model in a folder, None if the folder has no record and is no complete model.

    Raises:
        FileNotFoundError: it was removed.
        OSError: it cannot be read, or is no folder.
    """
    if not S_ISDIR(path.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    record = CacheRecord.read(path) or _rebuild_record(path)
    if record is None:
        return None
    damaged = tuple(record.find_damaged(path))
    if damaged:
        path.stat()  # not if it was removed meanwhile
    return StoredModel(record, path, damaged)


def _rebuild_record(path: Path) -> CacheRecord | None:
    """Make a lost record again from the files; return None if they are not a complete model."""
    try:
        incomplete = files.find_incomplete(path)
        path.stat()  # raises if it was removed meanwhile
        if incomplete:
            logger.warning("%s has no record and is ignored: %s is missing or cut off", path, incomplete[0])
            return None
        record = CacheRecord.from_files(path, path.parent.name.replace("--", "/", 1), path.name, "files")
    except (CorruptModelError, InvalidModelNameError) as error:
        path.stat()
        logger.warning("%s has no record and is ignored: %s", path, error)
        return None
    logger.warning("%s had no usable record; it was rebuilt from the files", path)
    try:
        with changing(path.parent):
            # Another process may have rebuilt and changed it meanwhile.
            if current := CacheRecord.read(path):
                return current
            record.write(path)
    except (OSError, CacheLockedError) as error:
        logger.warning("the record of %s cannot be written: %s", path, error)
    return record
