"""Resolution of a model's name to the directory that holds its files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from model_cache import files, hub, hub_cache, locks
from model_cache.download import Downloader
from model_cache.errors import (
    CacheLockedError,
    CorruptModelError,
    InvalidModelNameError,
    ModelUnavailableError,
)
from model_cache.folders import delete_empty
from model_cache.kinds import EMBEDDING, ROUTED, SPACY
from model_cache.names import RepoName, is_commit
from model_cache.packages import package_of
from model_cache.record import CacheRecord
from model_cache.store import Store
from model_cache.stored_model import StoredModel

logger = logging.getLogger(__name__)


def resolve_directory(name: str) -> Path | None:
    """Return the directory that a name stands for, None if it is the name of a repository.

    Raises:
        InvalidModelNameError: it is neither.
        ModelUnavailableError: the directory does not exist or holds no model.
    """
    if not name:
        raise InvalidModelNameError("the name of a model must not be empty: expected a directory or org/repo")
    if "\0" in name:
        raise InvalidModelNameError(f"{name!r} is neither a directory nor a repository: it holds a NUL character")
    try:
        directory = Path(name).expanduser()
    except RuntimeError as error:
        raise InvalidModelNameError(f"{name!r} is in a home folder that is not known: expected a directory") from error
    # os.path returns False where a Path raises: in a working directory that may not be read.
    is_directory = os.path.isdir(directory)  # noqa: PTH112
    known = any(os.path.isfile(directory / kind.marker) for kind in (EMBEDDING, SPACY, ROUTED))  # noqa: PTH113
    if known or files.is_static(directory):
        return directory.resolve()
    if directory.is_absolute() or is_directory or name.startswith((".", "~")):
        raise ModelUnavailableError(f"{directory} {_describe_fault(directory, is_directory)}")
    return None


def _describe_fault(directory: Path, is_directory: bool) -> str:
    """Say why a path is not the folder of a model, and what to do about it."""
    if not is_directory:
        return "is not a directory: expected the folder of a model"
    if os.path.isfile(directory / "0_Transformer" / "config.json"):  # noqa: PTH113
        return (
            "holds its model in 0_Transformer, as in sentence-transformers' old layout: load it with a recent "
            "sentence-transformers and save it again"
        )
    return "holds no config.json: expected the folder of a model"


class Resolver:
    """Finds a repository's model on this machine, or has it downloaded.

    Args:
        store: the cache's own models.
        downloader: what downloads into it.
        timeout_s: seconds to wait for another process that downloads the same repository.
        verified: the file that remembers which files outside the store were verified.
    """

    def __init__(self, store: Store, downloader: Downloader, timeout_s: float, verified: Path) -> None:
        self._store = store
        self._downloader = downloader
        self._timeout_s = timeout_s
        self._verified = verified

    def resolve(self, repo: RepoName, *, download: bool, weights: bool = True) -> StoredModel | Path:
        """Return a model of the store, or a directory outside it that the cache does not manage.

        Args:
            repo: its name.
            download: whether the Hub may be asked for it.
            weights: whether its encoder's weights are downloaded with it.

        Raises:
            ModelUnavailableError: no allowed source has it; the message says how to get it.
            CorruptModelError: its files are damaged and could not be downloaded again.
            DownloadError: the network kept failing.
            DiskSpaceError: the disk has too little free space for it.
        """
        stored, unusable = self._find(repo)
        if intact := next((model for model in stored if not model.damaged), None):
            return intact
        damaged = next(iter(stored), None)
        if damaged is not None:
            logger.warning("%s is damaged: %s is missing or cut off", damaged.name, damaged.damaged[0])
        if adopted := self._adopt_snapshot(repo):
            return adopted
        # A package carries one commit, so it does not stand for a revision that was asked for.
        package = None if repo.revision else package_of(repo.repo_id)
        if package is not None and (folder := package.find()):
            package.verify(folder, self._verified)
            return folder
        if unusable is not None:
            raise unusable
        if download and not hub.is_offline():
            wanted = RepoName(repo.repo_id, damaged.record.commit) if damaged else repo
            return self._downloader.download(wanted, weights=weights)
        reason = "HF_HUB_OFFLINE is set" if download else "downloading is switched off"
        if damaged is not None:
            raise CorruptModelError(
                f"{damaged.name} is damaged ({damaged.damaged[0]} is missing or cut off) and {reason}: "
                "allow downloads to fetch it again"
            )
        alternative = f"{package.install_hint}, or " if package else ""
        raise ModelUnavailableError(
            f"{repo} is not on this machine and {reason}: {alternative}run `akidb-mlx pull {repo}`"
        )

    def _find(self, repo: RepoName) -> tuple[list[StoredModel], OSError | None]:
        """Return the models in the store, or why it cannot be read, since another source may have the model."""
        try:
            return self._store.find(repo), None
        except OSError as error:
            logger.warning("the cache cannot be used: %s", error)
            return [], error

    def _adopt_snapshot(self, repo: RepoName) -> StoredModel | Path | None:
        """Hard-link a complete copy in the Hub client's cache into the store.

        Returns:
            The model; the copy's own folder where linking is not possible; None if there is no complete copy.
        """
        folder = hub_cache.find_snapshot(repo)
        if folder is None or not is_commit(folder.name):
            return None
        try:
            fault = hub_cache.find_fault(folder, self._verified)
        except (OSError, CorruptModelError, InvalidModelNameError) as error:
            fault = str(error)
        if fault is not None:
            logger.warning("the copy of %s in the Hub's cache is not used: %s", repo, fault)
            return None
        try:
            return self._link_snapshot(repo, folder)
        except (OSError, locks.LockTimeoutError, CacheLockedError) as error:
            logger.info("%s is used from the Hub's cache: %s", repo, error)
            return folder

    def _link_snapshot(self, repo: RepoName, folder: Path) -> StoredModel:
        commit = folder.name
        refs = () if repo.revision == commit else (repo.revision or "main",)
        with self._store.download_lock(repo, self._timeout_s):
            if model := self._store.find_intact(repo):
                return model
            staged = self._store.staging_folder(repo, commit)
            try:
                for name in files.select_needed(files.list_names(folder)):
                    files.hard_link(folder / name, staged / name)
            except OSError:
                delete_empty(staged)
                raise
            record = CacheRecord.from_files(staged, repo.repo_id, commit, "hub-cache", refs)
            return self._store.publish(staged, record)
