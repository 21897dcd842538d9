"""Downloads of whole models from the Hub into the store."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_cache import files, hub, locks
from model_cache.errors import DownloadError, ModelUnavailableError
from model_cache.eviction import Evictor
from model_cache.kinds import ENCODER_WEIGHTS
from model_cache.names import RepoName
from model_cache.progress import Progress
from model_cache.record import CacheRecord
from model_cache.store import Store
from model_cache.stored_model import StoredModel

if TYPE_CHECKING:
    from model_cache.description import RemoteModel

logger = logging.getLogger(__name__)

# As the Hub names licences: "cc-by-nc-4.0".
_NON_COMMERCIAL = re.compile(r"(^|[^a-z])nc([^a-z]|$)|non-?commercial", re.IGNORECASE)

ProgressBar = Callable[[str, int], AbstractContextManager[Progress | None]]


class Downloader:
    """Downloads models into a store, one process at a time for each repository.

    Args:
        store: where models are kept.
        evictor: what makes space for them.
        timeout_s: seconds for one download.
        progress: makes what is told of the bytes received, given a label and their total number.
    """

    def __init__(self, store: Store, evictor: Evictor, timeout_s: float, progress: ProgressBar) -> None:
        self._store = store
        self._evictor = evictor
        self._timeout_s = timeout_s
        self._progress = progress

    def latest_commit(self, repo: RepoName) -> str:
        """Ask the Hub which commit a branch or tag points to."""
        hub.check_online(repo)
        return hub.describe(repo, time.monotonic() + self._timeout_s).commit

    def file_names(self, repo: RepoName) -> tuple[str, ...]:
        """Ask the Hub which files of a repository a model needs."""
        hub.check_online(repo)
        return tuple(file.name for file in hub.describe(repo, time.monotonic() + self._timeout_s).files)

    def download(self, repo: RepoName, *, refresh: bool = False, weights: bool = True) -> StoredModel:
        """Download a model, unless another process has done so meanwhile.

        Args:
            repo: its name.
            refresh: ask the Hub even then.
            weights: whether its encoder's weights are wanted.
        """
        hub.check_online(repo)
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._store.download_lock(repo, self._timeout_s):
                if not refresh and (model := self._store.find_intact(repo)):
                    return model
                return self._fetch(repo, hub.describe(repo, deadline, weights=weights), deadline, weights)
        except locks.LockTimeoutError:
            raise DownloadError(
                f"another process has been downloading {repo} for {self._timeout_s:.0f} s: wait for it or end it"
            ) from None

    def fetch_files(self, model: StoredModel, wanted: re.Pattern[str] | None, folder: Path) -> None:
        """Download files of a model's commit that the store lacks into a folder.

        Args:
            model: the model.
            wanted: pattern of their names; those that a model needs if None.
            folder: an empty folder.
        """
        from model_cache.space import Space
        from model_cache.transfer import Transfer

        repo = RepoName(model.record.repo_id, model.record.commit)
        hub.check_online(repo)
        deadline = time.monotonic() + self._timeout_s
        remote = hub.describe(repo, deadline, wanted)
        remote = replace(remote, files=tuple(file for file in remote.files if file.name not in model.record.files))
        space = Space(self._store, self._evictor, remote)
        space.check_disk(remote.size)
        with self._progress(str(repo), remote.size) as progress:
            transfer = Transfer(remote, folder, deadline, progress or (lambda _: None), space.make_on_disk)
            for file in sorted(remote.files, key=lambda file: file.size):
                transfer.fetch(file)

    def _fetch(self, repo: RepoName, remote: RemoteModel, deadline: float, weights: bool) -> StoredModel:
        from model_cache.space import Space
        from model_cache.transfer import Transfer, received_bytes

        refs = () if repo.revision == remote.commit else (repo.revision or "main",)
        stored = self._store.find(RepoName(repo.repo_id))
        for model in stored:
            if model.record.commit == remote.commit and not model.record.find_damaged(model.path, check_hashes=True):
                return self._store.point_ref_to(model, refs[0]) if refs else model
        if remote.licence and _NON_COMMERCIAL.search(remote.licence):
            logger.warning("%s: its licence, %s, forbids commercial use", repo, remote.licence)
        space = Space(self._store, self._evictor, remote)
        space.check_limit()
        staged = self._store.staging_folder(repo, remote.commit)
        _link_stored_files(remote, stored, staged)
        lacking = [file for file in remote.files if not file.is_at(staged / file.name)]
        space.check_disk(sum(max(0, file.size - received_bytes(file, staged)) for file in lacking))
        with self._progress(str(repo), sum(file.size for file in lacking)) as progress:
            report = progress or (lambda _: None)
            transfer = Transfer(remote, staged, deadline, report, space.make_on_disk)
            # The small ones go first: models are removed for the others only if these came.
            for file in sorted(lacking, key=lambda file: file.size):
                transfer.fetch(file)
        _check_complete(staged, repo, weights)
        record = CacheRecord.from_files(staged, repo.repo_id, remote.commit, "hub", refs, remote.licence)
        space.make_within_limit()
        model = self._store.publish(staged, record)
        return self._store.point_ref_to(model, refs[0]) if refs else model


def _check_complete(staged: Path, repo: RepoName, weights: bool) -> None:
    """Refuse a model that lacks a file, beyond its encoder's weights where these are not wanted."""
    missing = [name for name in files.find_missing(staged) if weights or not ENCODER_WEIGHTS.fullmatch(name)]
    if incomplete := missing or files.find_truncated(staged):
        raise ModelUnavailableError(f"{repo} on the Hub is not a complete model: {incomplete[0]} is missing or cut off")


def _link_stored_files(remote: RemoteModel, stored: list[StoredModel], staged: Path) -> None:
    """Link into a staging folder the files that another commit, or a damaged copy, already has."""
    for file in remote.files:
        for model in stored:
            known = model.record.files.get(file.name)
            same = known is not None and file.sha256 == known.sha256 and not (staged / file.name).exists()
            with suppress(FileNotFoundError):  # another process may remove it meanwhile; then it is fetched
                if same and file.is_at(model.path / file.name):
                    files.hard_link(model.path / file.name, staged / file.name)
