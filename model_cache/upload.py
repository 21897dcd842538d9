"""Files that are pushed to the Hub, through its own client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_cache import hub
from model_cache.errors import UploadError
from model_cache.names import RepoName
from model_cache.retries import first_line, may_hold_token, status_of


def push_file(path: Path, repo: str, name: str, *, private: bool = False) -> str:
    """Put a file into a repository on the Hub under a name; see `push_files`."""
    return push_files({name: path}, repo, f"Add {name}", private=private)


def push_files(files: Mapping[str, Path | bytes], repo: str, message: str, *, private: bool = False) -> str:
    """Put files into a repository on the Hub, which is made if there is none, in one commit.

    Args:
        files: by their names there, files here or their content.
        repo: `org/repo`, or `org/repo@branch`.
        message: that of the commit.
        private: whether a repository that is made is private.

    Returns:
        The address of the commit.

    Raises:
        InvalidModelNameError: the Hub can have no such repository.
        ModelUnavailableError: the environment forbids requests, or holds a token that no request can carry.
        UploadError: the Hub cannot be reached, or refuses the files.
    """
    target = RepoName.parse(repo)
    hub.check_online(target)
    hub.check_token()
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        api.create_repo(target.repo_id, private=private, exist_ok=True)
        done = api.create_commit(
            repo_id=target.repo_id,
            operations=[CommitOperationAdd(name, content) for name, content in files.items()],
            revision=target.revision,
            commit_message=message,
        )
    except (HTTPError, InvalidURL, OSError, ValueError, RuntimeError) as raised:
        # The client wraps the failure of a large file.
        cause = raised.__cause__
        error = cause if isinstance(raised, RuntimeError) and isinstance(cause, Exception) else raised
        pushed = next(iter(files)) if len(files) == 1 else f"{len(files)} files"
        failure = f"{pushed} could not be pushed to {target}"
        if may_hold_token(error):
            raise UploadError(f"{failure}: {type(error).__name__}: HF_ENDPOINT must be an address") from None
        if status_of(error) in (401, 403):
            reason = "set HF_TOKEN to a token that may write to it (or run `hf auth login`)"
        else:
            reason = first_line(error)
        raise UploadError(f"{failure}: {reason}") from error
    return str(done.commit_url)
