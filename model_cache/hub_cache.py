"""The Hub client's own cache, which other programs fill: read and verified, never changed."""

from __future__ import annotations

import os
from pathlib import Path

from model_cache import files
from model_cache.names import RepoName


def find_snapshot(repo: RepoName) -> Path | None:
    """Return the folder in which the client keeps a repository, None where it has none."""
    if not os.path.isdir(_cache_folder() / f"models--{repo.folder}"):  # noqa: PTH112 - does not raise if forbidden
        return None  # saves importing the client
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo.repo_id, revision=repo.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None


def find_changed(folder: Path) -> list[str]:
    """Return the names of files in a snapshot whose content differs from the hash by which their blob is named."""
    links = [path for path in sorted(folder.rglob("*")) if path.is_symlink()]
    return [path.relative_to(folder).as_posix() for path in links if not _matches_name(path.resolve())]


def _matches_name(blob: Path) -> bool:
    return blob.name == (files.sha256(blob) if len(blob.name) == 64 else files.git_sha1(blob))


def _cache_folder() -> Path:
    """Return the folder of the client's cache, by the client's own rule."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return _expand(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expand(os.environ.get("HF_HOME") or f"{base}/huggingface") / "hub"


def _expand(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - keeps the name of a home folder that is not known
