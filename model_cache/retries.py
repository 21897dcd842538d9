"""Requests to the Hub under a deadline: retried after transient failures, other failures explained."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from model_cache.errors import DownloadError, ModelUnavailableError, excerpt
from model_cache.names import RepoName

_Result = TypeVar("_Result")

_ATTEMPTS = 6
_LONGEST_PAUSE_S = 30


def retry(work: Callable[[], _Result], repo: RepoName, deadline: float) -> _Result:
    """Call what asks the Hub, again after transient failures, with pauses that grow and differ between processes.

    Raises:
        DownloadError: the network kept failing, `deadline` passed, or the disk cannot be written.
        ModelUnavailableError: the Hub refuses the repository.
    """
    from httpx2 import HTTPError, InvalidURL
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
    except (HTTPError, InvalidURL, OSError, UnicodeError) as error:
        raise _explain(error, repo) from (None if may_hold_token(error) else error)


def _is_transient(error: BaseException) -> bool:
    from httpx2 import HTTPError, LocalProtocolError, TooManyRedirects, UnsupportedProtocol

    if (status := status_of(error)) is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return False
    if isinstance(error, (LocalProtocolError, TooManyRedirects, UnsupportedProtocol)):
        return False
    # Anything else that goes wrong in a transfer: connections, time-outs, a body of the wrong size.
    return isinstance(error, (HTTPError, OSError))


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the response that an error is about; the client may have chained it."""
    cause: BaseException | None = error
    while cause is not None:
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
        cause = cause.__cause__
    return None


def may_hold_token(error: BaseException) -> bool:
    """Return whether an error's message may hold the token, so that neither it nor its traceback may be shown."""
    from httpx2 import InvalidURL, LocalProtocolError

    return isinstance(error, (InvalidURL, LocalProtocolError, UnicodeError))


def _explain(error: BaseException, repo: RepoName) -> Exception:
    """Return the error that tells a person what went wrong and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repo.repository}"
    status = status_of(error)
    if isinstance(error, GatedRepoError) or status == 403:
        return ModelUnavailableError(
            f"{repo} is gated: accept its terms at {address} and set HF_TOKEN to a token of that account "
            "(or run `hf auth login`)"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelUnavailableError(f"{repo.repository} has no revision {repo.revision}: see {address}/tree/main")
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return ModelUnavailableError(
            f"the Hub has no model {repo.repository}, or it is private: check the name, or set HF_TOKEN"
        )
    if may_hold_token(error):
        return DownloadError(
            f"{repo} cannot be asked for ({type(error).__name__}): HF_ENDPOINT must be an address, and HF_TOKEN "
            "hold printable ASCII only"
        )
    if isinstance(error, TimeoutError):
        return DownloadError(f"{repo} was not downloaded in time; what was received is kept: try again to continue")
    if isinstance(error, OSError) and error.errno is not None and status is None and not _is_transient(error):
        return DownloadError(f"{repo} could not be written: {error.strerror}")
    if status is not None and not _is_transient(error):
        return ModelUnavailableError(f"the Hub refused {repo} with status {status}: {first_line(error)}")
    return DownloadError(
        f"{repo} could not be downloaded: {first_line(error)}; what was received is kept: "
        "check the network and try again"
    )


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message, as they may stand in another message."""
    lines = str(error).strip().splitlines() or ["no details"]
    return f"{type(error).__name__}: {excerpt(lines[0], 300)}"
