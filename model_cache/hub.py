"""The Hub, through huggingface_hub: whether it may be asked, and its description of a repository.

huggingface_hub reads its environment when it is imported, which takes a while. Like all that only a request needs, it
is imported on first use: most starts find their model on this machine.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from model_cache.errors import ModelUnavailableError
from model_cache.names import RepoName
from model_cache.retries import retry

if TYPE_CHECKING:
    from model_cache.description import RemoteModel

# Seconds that the Hub may take to describe a repository, at each attempt.
_DESCRIPTION_TIMEOUT_S = 60.0
# A hundred times what the description of a model with many files and long lists of results has.
_LONGEST_DESCRIPTION = 8 << 20


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


def describe(
    repo: RepoName, deadline: float, wanted: re.Pattern[str] | None = None, *, weights: bool = True
) -> RemoteModel:
    """Ask the Hub what it holds under a name, which may carry a branch, tag or commit.

    Args:
        repo: the name.
        deadline: by `time.monotonic`, when to give up.
        wanted: pattern of the names of the files to describe; those that a model needs if None.
        weights: whether an encoder's weights are among these.

    Raises:
        ModelUnavailableError: there is no such repository, it may not be read, it is not a supported model, or it has
            none of the files.
        DownloadError: the Hub cannot be reached, or its answer is malformed.
        InvalidModelNameError: it answered with names from which no path may be built.
    """
    from huggingface_hub import constants

    from model_cache import exchange
    from model_cache.description import read_description

    check_token()
    path = f"/api/models/{repo.repository}"
    if repo.revision is not None:
        path += f"/revision/{quote(repo.revision, safe='')}"

    def ask() -> bytes:
        until = min(deadline, time.monotonic() + _DESCRIPTION_TIMEOUT_S)
        with exchange.get(f"{constants.ENDPOINT}{path}?blobs=true", until) as answer:
            return answer.read(_LONGEST_DESCRIPTION)

    return read_description(retry(ask, repo, deadline), repo, path, wanted, weights=weights)


def check_token() -> None:
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
