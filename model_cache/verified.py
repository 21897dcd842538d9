"""Files outside the store that are used in place: their hashes are computed once, not at every start."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from model_cache.files import git_sha1, open_regular, sha256, write_atomically

logger = logging.getLogger(__name__)

_State = list[str | int]


def find_changed(expected: Mapping[Path, str], record: Path) -> dict[Path, str]:
    """Return the files whose content differs from their hash, with the hash that was found.

    `record` remembers by path, size and modification time what was verified, so that a later start does not read the
    files again. A record that cannot be read or written only costs that time.

    Args:
        expected: by path, the SHA-256 or, of 40 digits, the hash that git gives the file.
        record: the file that remembers, of JSON.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    known = _read(record)
    verified: dict[str, _State] = {}
    changed: dict[Path, str] = {}
    for path, digest in expected.items():
        found = path.stat()
        state: _State = [digest, found.st_size, found.st_mtime_ns]
        if known.get(str(path)) == state:
            continue
        actual = sha256(path) if len(digest) == 64 else git_sha1(path)
        if actual == digest:
            verified[str(path)] = state
        else:
            changed[path] = actual
    if verified:
        _write(record, {**known, **verified})
    return changed


def _read(record: Path) -> dict[str, _State]:
    try:
        with open_regular(record) as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read and is ignored: %s", record, error)
        return {}
    return content if isinstance(content, dict) else {}


def _write(record: Path, content: dict[str, _State]) -> None:
    try:
        present = {path: state for path, state in content.items() if Path(path).exists()}
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(present))
    except OSError as error:
        logger.warning("%s cannot be written, the next start verifies again: %s", record, error)
