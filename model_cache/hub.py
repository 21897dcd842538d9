"""The Hub, through huggingface_hub: a repository's description, and its files one by one, verified.

huggingface_hub reads its environment when it is imported, which takes a while, so it is imported on first use.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_cache import files
from model_cache.errors import CorruptModelError, DownloadError, ModelUnavailableError
from model_cache.kinds import kind_of
from model_cache.names import RepoName, check_commit
from model_cache.progress import Progress
from model_cache.retries import check_deadline, retry, time_left

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

# Seconds that the Hub may take to describe a repository.
_DESCRIPTION_TIMEOUT_S = 10


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, with the hash that the Hub declares for it."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def is_at(self, path: Path) -> bool:
        """Return whether a path holds exactly this file."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return files.sha256(path) == self.sha256
        return files.git_sha1(path) == self.git_sha1


@dataclass(frozen=True)
class RemoteModel:
    """A repository at one commit: the files of it that a model needs."""

    repo_id: str
    commit: str
    licence: str | None
    files: tuple[RemoteFile, ...]


def is_offline() -> bool:
    """Return whether the environment forbids requests to the Hub, by the Hub's own variable."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def check_online(repo: RepoName) -> None:
    """Refuse to ask the Hub for a repository where the environment forbids requests.

    Raises:
        ModelUnavailableError: it does.
    """
    if is_offline():
        raise ModelUnavailableError(f"HF_HUB_OFFLINE is set, so the Hub is not asked for {repo}: unset it")


def describe(repo: RepoName, deadline: float) -> RemoteModel:
    """Ask the Hub what it holds under a name, which may carry a branch, tag or commit.

    Args:
        repo: the name.
        deadline: by `time.monotonic`, when to give up.

    Raises:
        ModelUnavailableError: there is no such repository, it may not be read, or it is not a supported model.
        DownloadError: the Hub cannot be reached.
        InvalidModelNameError: it answered with names from which no path may be built.
    """
    from huggingface_hub import HfApi

    _check_token()

    def ask() -> ModelInfo:
        timeout = min(_DESCRIPTION_TIMEOUT_S, time_left(deadline))
        return HfApi().model_info(repo.repo_id, revision=repo.revision, files_metadata=True, timeout=timeout)

    info = retry(ask, repo, deadline)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = files.select_needed(siblings)
    kind = kind_of(siblings)
    if not kind.matches(names):
        raise ModelUnavailableError(
            f"{repo} on the Hub is not a supported model: it needs {kind.requirement}, and holds "
            f"{', '.join(sorted(siblings)[:8]) or 'nothing'}"
        )
    commit = info.sha or ""
    check_commit(commit)
    return RemoteModel(
        repo_id=repo.repo_id,
        commit=commit,
        licence=str(info.card_data["license"]) if info.card_data and "license" in info.card_data else None,
        files=tuple(_remote_file(siblings[name]) for name in names),
    )


def _check_token() -> None:
    """Refuse a token that no request can carry, without showing it; the client fails on some and cuts others.

    Raises:
        ModelUnavailableError: the environment, or else the client's file, holds such a token.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return
    source, token = next(
        ((name, value) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if (value := os.environ.get(name))),
        (constants.HF_TOKEN_PATH, ""),
    )
    try:
        token = token or Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeError) else f"cannot be read: {error.strerror}"
        raise ModelUnavailableError(f"the Hub's token in {source} {reason}; correct it or delete it") from None
    if any(not "!" <= character <= "~" for character in token.strip()):
        raise ModelUnavailableError(
            f"the Hub's token in {source} holds a space, a control character or one that is not ASCII: set it to the "
            "token alone, or unset it"
        )


def _remote_file(sibling: Any) -> RemoteFile:
    if sibling.size is None or (sibling.lfs is None and sibling.blob_id is None):
        raise ModelUnavailableError(f"the Hub declares neither size nor hash of {sibling.rfilename}")
    return RemoteFile(
        name=sibling.rfilename,
        size=sibling.size,
        sha256=None if sibling.lfs is None else sibling.lfs.sha256,
        git_sha1=sibling.blob_id,
    )


def received_bytes(file: RemoteFile, folder: Path) -> int:
    """Return how many bytes of a file an interrupted download left in a folder."""
    part = _part(file, folder)
    return part.stat().st_size if part.is_file() else 0


def fetch(model: RemoteModel, file: RemoteFile, folder: Path, deadline: float, progress: Progress | None) -> None:
    """Download a file into a folder, continuing after the bytes that an interrupted download left.

    Raises:
        CorruptModelError: it arrived twice with a different hash than the Hub declares.
        DownloadError: the network kept failing, or `deadline` passed.
        ModelUnavailableError: the Hub refuses the file.
    """
    repo = RepoName(model.repo_id, model.commit)
    part = _part(file, folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda _: None)
    report(received_bytes(file, folder))
    for _ in range(2):
        # As long as some attempts bring anything, there are as many again.
        while (before := received_bytes(file, folder)) < file.size or not part.exists():
            try:
                retry(partial(_receive, model, file, part, deadline, report), repo, deadline)
            except DownloadError:
                if received_bytes(file, folder) <= before:
                    raise
        if file.is_at(part):
            part.replace(folder / file.name)
            return
        logger.warning("%s: %s arrived with a different hash than the Hub declares", repo, file.name)
        report(-received_bytes(file, folder))
        part.unlink()
    raise CorruptModelError(
        f"{file.name} of {repo} arrived twice with a different SHA-256 than the Hub declares ({file.sha256}); "
        "a proxy may be changing it: try another network, or report it to the repository's owner"
    )


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}.part"


def _receive(model: RemoteModel, file: RemoteFile, part: Path, deadline: float, report: Progress) -> None:
    """Ask once for the bytes that a part lacks. The client itself would start a file anew after each interruption."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(model.repo_id, file.name, revision=model.commit)
    with part.open("ab") as out:
        size = out.tell()
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if size:
            headers["Range"] = f"bytes={size}-"
        timeout = min(constants.HF_HUB_DOWNLOAD_TIMEOUT, time_left(deadline))
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            if size and response.status_code != 206:  # the whole file, from its beginning
                report(-size)
                size = out.truncate(0)
            for chunk in response.iter_bytes():
                check_deadline(deadline)
                out.write(chunk)
                size += len(chunk)
                report(len(chunk))
                if size > file.size:
                    return
    if size < file.size:
        raise ConnectionError(f"the connection ended after {size} of {file.size} bytes of {file.name}")
