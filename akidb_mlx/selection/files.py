"""The files that selectors are written to, and the check of a place before the work for it is done."""

from __future__ import annotations

import errno
import os
from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.local_paths import local_path

ALGORITHMS = ("knn", "kmeans", "svm", "mlp")
# The names of selectors' files, as vLLM's semantic-router looks for them.
FILE_NAMES = {algorithm: f"{algorithm}_model.json" for algorithm in ALGORITHMS}


def output_file(path: str | PathLike[str], algorithm: str) -> Path:
    """Return the file that a selector is written to, in a folder that can be written.

    Args:
        path: the file; or a folder, which is there or ends with "/" and is then made.
        algorithm: the selector's, which gives the file its name in a folder.

    Raises:
        InvalidInputError: it is a URL.
        OSError: there is no such folder, or it cannot be written.
    """
    target = local_path(path)
    if fspath(path).endswith(os.sep):
        target.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target /= FILE_NAMES[algorithm]
    check_writable(target)
    return target


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Raises:
        OSError: its folder is missing or cannot be written, or it is a folder itself.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        fault = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
        raise OSError(fault, os.strerror(fault), str(path.parent))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
