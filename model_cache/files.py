"""The files of a model: which of a repository's a model needs, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from model_cache.errors import CorruptModelError, InvalidModelNameError

# Never code, pickles or the weights of other formats: nothing that is fetched can be executed.
_NEEDED = re.compile(
    r"(config|config_sentence_transformers|sentence_bert_config|modules|tokenizer|tokenizer_config"
    r"|special_tokens_map|added_tokens|generation_config|chat_template)\.json|chat_template\.jinja"
    r"|model(-\d{1,6}-of-\d{1,6})?\.safetensors|model\.safetensors\.index\.json"
    r"|\d{1,3}_[A-Za-z]{1,40}/(config\.json|model\.safetensors)"
)
INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_BLOCK = 1 << 22
_LONGEST_HEADER = 100_000_000  # the format's own bound


def needed(names: Iterable[str]) -> list[str]:
    """Those of a repository's file names that a model needs, sorted.

    Raises:
        InvalidModelNameError: one of all the names is not one that a file of a repository may have.
    """
    checked = [check_file_name(name) for name in names]
    chosen = sorted(name for name in checked if _NEEDED.fullmatch(name))
    # A repository may hold the same weights whole and in parts.
    if _WEIGHTS in chosen:
        chosen = [name for name in chosen if not re.fullmatch(r"model-.*\.safetensors", name) and name != INDEX]
    return chosen


def check_file_name(name: str) -> str:
    """`name`, if a path below a folder may be made from it.

    Raises:
        InvalidModelNameError: it is absolute, leaves the folder, or holds what no path should.
    """
    parts = name.split("/")
    if not name or len(name) > 255 or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise InvalidModelNameError(f"{name!r} is not the name of a file below a model's folder")
    if any(ord(character) < 32 or character == "\x7f" for character in name) or PurePosixPath(name).is_absolute():
        raise InvalidModelNameError(f"{name!r} is not the name of a file below a model's folder")
    return name


def missing(folder: Path) -> list[str]:
    """The names of files that a folder should hold, and does not, to be a whole model.

    Raises:
        CorruptModelError: the index of the weights cannot be read.
        InvalidModelNameError: the index names a file outside the folder.
    """
    required = ["config.json", "tokenizer.json"]
    if (folder / _WEIGHTS).is_file() or not (folder / INDEX).is_file():
        required.append(_WEIGHTS)
    else:
        required += _shards(folder / INDEX)
    return [name for name in required if not (folder / name).is_file()]


def truncated(folder: Path) -> list[str]:
    """The names of weight files in a folder whose size is not what their own headers say."""
    return [path.name for path in sorted(folder.glob("*.safetensors")) if not _is_whole(path)]


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, JSON, then the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        if not 2 <= header <= min(size - 8, _LONGEST_HEADER):
            return False
        try:
            tensors = json.loads(file.read(header))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
            return size == 8 + header + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptModelError(f"{index} is not an index of weights: {type(error).__name__}: {error}") from error
    for name in names:
        if not isinstance(name, str) or "/" in check_file_name(name) or not name.endswith(".safetensors"):
            raise InvalidModelNameError(f"{index} names {name!r}, which is not a weight file beside it")
    return sorted(names)


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    return _digest(path, hashlib.sha256())


def git_sha1(path: Path) -> str:
    """A file's hash as git has it, which is what the Hub declares of files that are not large."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
