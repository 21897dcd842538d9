"""The Hub, through huggingface_hub: what a repository holds, and its files one by one, verified.

huggingface_hub reads its environment when it is imported and takes a while to be, so it is imported on first use.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from model_cache import files
from model_cache.errors import CorruptModelError, DownloadError, ModelUnavailableError
from model_cache.kinds import kind_of
from model_cache.names import RepoName, check_commit

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

# Called with the number of bytes that have come since the last call.
Progress = Callable[[int], None]

_Result = TypeVar("_Result")

_ATTEMPTS = 6
_LONGEST_PAUSE_S = 30
# Seconds that the Hub may take to say what a repository holds.
_INFO_S = 10


class _TooLateError(Exception):
    """The deadline passed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, with the hash that the Hub declares of it."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def is_at(self, path: Path) -> bool:
        """Whether this very file lies there."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return files.sha256(path) == self.sha256
        return files.git_sha1(path) == self.git_sha1


@dataclass(frozen=True)
class RemoteModel:
    """A repository at one commit: the files that are needed of it."""

    repo_id: str
    commit: str
    licence: str | None
    files: tuple[RemoteFile, ...]


def is_offline() -> bool:
    """Whether the environment forbids requests to the Hub, by the Hub's own variable."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def describe(repo: RepoName, deadline: float) -> RemoteModel:
    """What the Hub holds under a name, which may carry a branch, tag or commit.

    Args:
        repo: the name.
        deadline: by `time.monotonic`, when to give up.

    Raises:
        ModelUnavailableError: there is none, it may not be read, or it is not a model that can be used.
        DownloadError: the Hub cannot be reached.
        InvalidModelNameError: it answered with names that no path may be made from.
    """
    from huggingface_hub import HfApi

    def ask() -> ModelInfo:
        timeout = min(_INFO_S, _left(deadline))
        return HfApi().model_info(repo.repo_id, revision=repo.revision, files_metadata=True, timeout=timeout)

    info = _retried(ask, repo, deadline)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = files.needed(siblings)
    kind = kind_of(siblings)
    if not kind.is_in(names):
        raise ModelUnavailableError(
            f"{repo} on the Hub is not a model that can be used: it needs {kind.wants}, and holds "
            f"{', '.join(sorted(siblings)[:8]) or 'nothing'}"
        )
    return RemoteModel(
        repo_id=repo.repo_id,
        commit=check_commit(info.sha or ""),
        licence=str(info.card_data["license"]) if info.card_data and "license" in info.card_data else None,
        files=tuple(_remote_file(siblings[name]) for name in names),
    )


def received(file: RemoteFile, folder: Path) -> int:
    """Bytes of a file that an interrupted download left in a folder."""
    part = _part(file, folder)
    return part.stat().st_size if part.is_file() else 0


def fetch(model: RemoteModel, file: RemoteFile, folder: Path, deadline: float, progress: Progress | None) -> None:
    """Put a file into a folder; what an interrupted download left of it is gone on with.

    Raises:
        CorruptModelError: what came, twice, has another hash than the Hub declares.
        DownloadError: the network failed, or `deadline` passed.
        ModelUnavailableError: the Hub does not give the file.
    """
    repo = RepoName(model.repo_id, model.commit)
    part = _part(file, folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda _: None)
    report(received(file, folder))
    for _ in range(2):
        # As long as some attempts bring anything, there are as many again.
        while (before := received(file, folder)) < file.size or not part.exists():
            try:
                _retried(partial(_receive, model, file, part, deadline, report), repo, deadline)
            except DownloadError:
                if received(file, folder) <= before:
                    raise
        if file.is_at(part):
            part.replace(folder / file.name)
            return
        logger.warning("%s: %s came with another hash than the Hub declares", repo, file.name)
        report(-received(file, folder))
        part.unlink()
    raise CorruptModelError(
        f"{file.name} of {repo} has come twice with another SHA-256 than the Hub declares ({file.sha256}); "
        "a proxy may be changing it: try another network, or report it to the repository's owner"
    )


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}.part"


def _receive(model: RemoteModel, file: RemoteFile, part: Path, deadline: float, report: Progress) -> None:
    """Ask once for what a part lacks. The client itself would start a file anew after each interruption."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(model.repo_id, file.name, revision=model.commit)
    with part.open("ab") as out:
        size = out.tell()
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if size:
            headers["Range"] = f"bytes={size}-"
        timeout = min(constants.HF_HUB_DOWNLOAD_TIMEOUT, _left(deadline))
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            if size and response.status_code != 206:  # the whole file, from its beginning
                report(-size)
                size = out.truncate(0)
            for chunk in response.iter_bytes():
                _left(deadline)
                out.write(chunk)
                size += len(chunk)
                report(len(chunk))
                if size > file.size:
                    return
    if size < file.size:
        raise ConnectionError(f"the connection ended after {size} of {file.size} bytes of {file.name}")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _TooLateError
    return left


def cached(repo: RepoName) -> Path | None:
    """The folder that the Hub's own cache keeps a repository in, None if it has none."""
    if not os.path.isdir(_client_cache() / f"models--{repo.folder}"):  # noqa: PTH112 - does not raise if forbidden
        return None  # saves importing the client
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo.repo_id, revision=repo.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None


def changed(folder: Path) -> list[str]:
    """The names of files in a folder of the Hub's own cache that are not what their blobs' names, hashes, say."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink()]
    return [path.relative_to(folder).as_posix() for path in paths if not _is_blob(path.resolve())]


def _is_blob(path: Path) -> bool:
    name = path.name
    return name == (files.sha256(path) if len(name) == 64 else files.git_sha1(path))


def _client_cache() -> Path:
    """Where the client keeps its cache, by its own rule."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(base) / "huggingface").expanduser() / "hub"


def _remote_file(sibling: Any) -> RemoteFile:
    if sibling.size is None or (sibling.lfs is None and sibling.blob_id is None):
        raise ModelUnavailableError(f"the Hub declares neither size nor hash of {sibling.rfilename}")
    return RemoteFile(
        name=sibling.rfilename,
        size=sibling.size,
        sha256=None if sibling.lfs is None else sibling.lfs.sha256,
        git_sha1=sibling.blob_id,
    )


def _retried(work: Callable[[], _Result], repo: RepoName, deadline: float) -> _Result:
    """Do what asks the Hub, again after transient failures, with pauses that grow and differ between processes."""
    from httpx2 import HTTPError
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception(_is_transient),
        wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE_S),
        stop=lambda state: stop_after_attempt(_ATTEMPTS)(state) or time.monotonic() + state.upcoming_sleep > deadline,
        reraise=True,
    )
    try:
        result: _Result = retrying(work)
        return result
    except _TooLateError:
        raise DownloadError(f"{repo} was not fetched in time; what has come is kept: try again to go on") from None
    except (HTTPError, OSError) as error:
        raise _explained(error, repo) from error


def _is_transient(error: BaseException) -> bool:
    from httpx2 import HTTPError

    if (status := _status(error)) is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return False
    # Whatever else goes wrong in a transfer: connections, time-outs, a body of the wrong size.
    return isinstance(error, (HTTPError, OSError))


def _status(error: BaseException) -> int | None:
    """The status of the answer that an error is about; the client may have chained it."""
    seen: BaseException | None = error
    while seen is not None:
        if (response := getattr(seen, "response", None)) is not None:
            return int(response.status_code)
        seen = seen.__cause__
    return None


def _explained(error: BaseException, repo: RepoName) -> Exception:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repo.repo_id}"
    status = _status(error)
    if isinstance(error, GatedRepoError) or status == 403:
        return ModelUnavailableError(
            f"{repo} is gated: accept its terms at {address} and give a token of that account in HF_TOKEN "
            "(or run `hf auth login`)"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelUnavailableError(f"{repo.repo_id} has no revision {repo.revision}: see {address}/tree/main")
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return ModelUnavailableError(
            f"the Hub has no model {repo.repo_id}, or it is private: check the name, or give a token in HF_TOKEN"
        )
    if isinstance(error, OSError) and error.errno is not None and status is None and not _is_transient(error):
        return DownloadError(f"{repo} could not be written: {error.strerror}")
    if status is not None and not _is_transient(error):
        return ModelUnavailableError(f"the Hub refused {repo} with status {status}: {_first_line(error)}")
    return DownloadError(
        f"{repo} could not be fetched: {_first_line(error)}; what has come is kept: check the network and try again"
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
