"""The Hub client's own cache, which other programs fill: read and verified, never changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from model_cache import files
from model_cache.names import RepoName
from model_cache.verified import find_changed

logger = logging.getLogger(__name__)


def find_snapshot(repo: RepoName) -> Path | None:
    """Return the folder in which the client keeps a repository, None where it has none."""
    from huggingface_hub import constants  # which takes no time, unlike the rest of the client

    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.folder}")
    try:
        folder.stat()
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repo.repo_id, revision=repo.revision, local_files_only=True))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # the client's own are of these kinds
        logger.debug("the Hub's cache has no complete copy of %s: %s", repo, error)
        return None
    except OSError as error:
        logger.warning("the copy of %s in the Hub's cache is not used: %s", repo, error)
        return None


def find_fault(folder: Path, verified: Path) -> str | None:
    """Return why a snapshot may not be used, None if it is complete and its files have the hashes of their blobs.

    Only the files that the model needs are looked at.

    Args:
        folder: the snapshot.
        verified: the file that remembers which blobs were verified.

    Raises:
        OSError: a file cannot be read.
        CorruptModelError: the index of the weights cannot be read.
        InvalidModelNameError: the index names a file outside the folder.
    """
    if incomplete := files.find_incomplete(folder):
        return f"{incomplete[0]} is missing or cut off"
    blobs = folder.parent.parent / "blobs"
    expected: dict[Path, str] = {}
    for name in files.select_needed(files.list_names(folder)):
        path = folder / name
        # The client names a blob by its hash. The blob may be a link too, to where several repositories share it.
        blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
        if blob.parent != blobs:
            return (
                f"{name} is no link to a blob, so its hash is not known; to use it unchecked, name the folder {folder}"
            )
        expected[path] = blob.name
    for path, found in find_changed(expected, verified).items():
        return f"{path.relative_to(folder)} has the hash {found}, not {expected[path]}"
    return None
