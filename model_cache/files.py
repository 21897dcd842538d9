"""The files of a model: which of a repository's it needs, and whether they are complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import reprlib
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from model_cache.errors import CorruptModelError, InvalidModelNameError
from model_cache.kinds import EMBEDDING, GGUF, ROUTED, SELECTOR, SPACY, STATIC, kind_of

INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_STATIC_FOLDER = "0_StaticEmbedding"
_BLOCK = 1 << 22
_LONGEST_MODULES = 1 << 16
# How file systems say that they cannot flush a drive: those on a network, and some on foreign disks.
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
_LONGEST_HEADER = 16 << 20  # a hundred times what an embedding model has


def select_needed(names: Iterable[str]) -> list[str]:
    """Return those of a repository's file names that a model needs, sorted.

    Raises:
        InvalidModelNameError: any of the names, needed or not, is not a valid file name.
    """
    names = list(names)
    for name in names:
        check_file_name(name)
    needed = sorted(filter(kind_of(names).needs, names))
    # A repository may hold the same weights whole and in parts.
    if _WEIGHTS in needed:
        needed = [name for name in needed if not re.fullmatch(r"model-.*\.safetensors", name) and name != INDEX]
    return needed


def list_names(folder: Path) -> list[str]:
    """Return the names of all that is no folder in a folder and below it, relative to the folder.

    Raises:
        OSError: the folder, or one below it, cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    paths = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]
    return [path.relative_to(folder).as_posix() for path in paths]


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it; refuse what is no regular file, since reading a FIFO would wait for its writer.

    Raises:
        OSError: there is no such file, it cannot be read, or it is not a regular one.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        yield file


def check_file_name(name: str) -> None:
    """Refuse a name from which no path below a folder may be built.

    Raises:
        InvalidModelNameError: it is absolute, leaves the folder, or contains what no path should.
    """
    parts = name.split("/")
    if not name or len(name) > 255 or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise InvalidModelNameError(f"{name!r} is not the name of a file below a model's folder")
    if any(ord(character) < 32 or character == "\x7f" for character in name) or PurePosixPath(name).is_absolute():
        raise InvalidModelNameError(f"{name!r} is not the name of a file below a model's folder")


def find_incomplete(folder: Path) -> list[str]:
    """Return the names of files that are missing from a model's folder; if none, those of truncated weights.

    Raises:
        CorruptModelError: the file that names the others, such as the index of the weights, cannot be read.
        InvalidModelNameError: it names a file outside the folder.
    """
    return find_missing(folder) or find_truncated(folder)


def find_missing(folder: Path) -> list[str]:
    """Return the names of files that a complete model has and a folder does not.

    Raises:
        CorruptModelError: the file that names the others, such as the index of the weights, cannot be read.
        InvalidModelNameError: it names a file outside the folder.
    """
    if kind_of([path.name for path in folder.glob("*")]) in (SELECTOR, GGUF) or any(folder.glob("*/**/*.gguf")):
        return []
    if (folder / SPACY.marker).is_file() and not (folder / EMBEDDING.marker).is_file():
        required = _spacy_files(folder / SPACY.marker)
    elif is_static(folder):
        below = f"{_STATIC_FOLDER}/" if (folder / _STATIC_FOLDER).is_dir() else ""
        required = [STATIC.marker, f"{below}tokenizer.json", f"{below}{_WEIGHTS}"]
    elif is_routed(folder):
        encoders = _encoder_folders(folder / ROUTED.marker)
        required = ["modules.json", *(f"{name}/{file}" for name in encoders for file in _encoder_files(folder / name))]
    else:
        required = _encoder_files(folder)
    return [name for name in required if not (folder / name).is_file()]


def is_routed(folder: Path) -> bool:
    """Return whether a folder is that of a model whose first module is a Router: its encoders lie in folders."""
    # os.path returns False where a Path raises, as for a name that is too long.
    return os.path.isfile(folder / ROUTED.marker) and not os.path.isfile(folder / EMBEDDING.marker)  # noqa: PTH113


def is_static(folder: Path) -> bool:
    """Return whether a folder is that of a static model of sentence-transformers, which has no config.json."""
    # os.path returns False where a Path raises, as for a name that is too long.
    if os.path.isfile(folder / EMBEDDING.marker):  # noqa: PTH113
        return False
    try:
        with open_regular(folder / STATIC.marker) as file:
            return b".StaticEmbedding" in file.read(_LONGEST_MODULES)
    except OSError:
        return False


def _encoder_files(folder: Path) -> list[str]:
    """Return the names of the files that an encoder requires in its folder."""
    return ["config.json", "tokenizer.json", *weight_files(folder)]


def _encoder_folders(router: Path) -> list[str]:
    """Return the folders of a Router's encoders, and of tables in the place of one, sorted."""
    try:
        types = json.loads(router.read_text("utf-8"))["types"]
        folders = [name for name, kind in types.items() if kind.endswith(("Transformer", "SparseStaticEmbedding"))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptModelError(f"{router} is not that of a Router: {type(error).__name__}: {error}") from error
    for name in folders:
        check_file_name(name)
    return sorted(folders)


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that a model's weights are read from, whether or not they are there, sorted.

    A file that holds all of them goes before an index of parts, as in transformers.

    Raises:
        CorruptModelError: the index of the weights cannot be read.
        InvalidModelNameError: the index names a file outside the folder.
    """
    if (folder / _WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [_WEIGHTS]
    return _shards(folder / INDEX)


def _spacy_files(config: Path) -> list[str]:
    """Return the files that a spaCy pipeline requires: a component with a model of its own has it in a file."""
    try:
        components = re.findall(
            r"^\[components\.([A-Za-z0-9_-]{1,40})\.model\]$", config.read_text("utf-8"), re.MULTILINE
        )
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"{config} cannot be read: {type(error).__name__}: {error}") from error
    return [SPACY.marker, "meta.json", "vocab/strings.json", *(f"{name}/model" for name in components)]


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptModelError(f"{index} is not an index of weights: {type(error).__name__}: {error}") from error
    for name in names:
        if not isinstance(name, str) or "/" in name or len(name) > 255 or not name.endswith(".safetensors"):
            shown = reprlib.repr(name)
            raise InvalidModelNameError(f"{index} names {shown}, which is not a weight file beside it")
        check_file_name(name)
    return sorted(names)


def find_truncated(folder: Path) -> list[str]:
    """Return the names of weight files in a folder whose size differs from what their own headers say."""
    files = folder.glob("*/*.safetensors" if is_routed(folder) else "*.safetensors")
    return [path.relative_to(folder).as_posix() for path in sorted(files) if not _has_full_length(path)]


def _has_full_length(path: Path) -> bool:
    """Return whether a safetensors file is as long as its header says: 8 bytes of length, JSON, then the tensors."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
        if not 2 <= header <= min(size - 8, _LONGEST_HEADER):
            return False
        try:
            tensors = json.loads(file.read(header))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
            return size == 8 + header + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return _hex_digest(path, hashlib.sha256())


def git_sha1(path: Path) -> str:
    """Return the hash that git gives a file, which the Hub declares for files that are not large."""
    return _hex_digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _hex_digest(path: Path, digest: hashlib._Hash) -> str:
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hard_link(source: Path, target: Path) -> None:
    """Give a file a second name, so that its content takes no more space; a symbolic link is followed first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source.resolve(), target)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk, so that they survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """Have what was written put on the medium; macOS's `fsync` leaves it in the drive's own cache."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.fsync(descriptor)


def write_atomically(path: Path, content: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it; its folder must exist."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            _flush(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
