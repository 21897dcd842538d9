"""The files of a job: found by name, folder, pattern or address, and known again by a hash of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown

FileFormat = Literal["parquet", "arrow", "jsonl", "csv", "tsv", "text"]
Compression = Literal["gzip", "zstd"]

_FORMATS: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
# The samples that a file is known by: so many, spread over it, of so many bytes.
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
# Most bytes of a Parquet footer that are hashed, and the length and magic number at its end.
_LONGEST_FOOTER, _FOOTER_END = 16 << 20, 8


@dataclass(frozen=True)
class InputFile:
    """One file of a job.

    Attributes:
        path: where it is, as fsspec takes it.
        format: how it holds rows.
        compression: how its bytes are compressed as a whole; None where they are not.
        bytes: its size.
        sha256: hash of its size and of samples of it, with the whole footer of a Parquet file.
    """

    path: str
    format: FileFormat
    compression: Compression | None
    bytes: int
    sha256: str


def find_inputs(inputs: Sequence[str | PathLike[str]], output: Path) -> list[InputFile]:
    """Return the files that names, folders, patterns and addresses stand for, in order, each once.

    The files of a folder come sorted; those of other kinds in it are left out, and so is what lies in `output`.

    Raises:
        InvalidInputError: there is no such file, none in a folder, it cannot be read or its kind is not known.
    """
    if isinstance(inputs, (str, bytes)) or not inputs:
        raise InvalidInputError(f"inputs must be a list of files, folders or patterns, found {shown(inputs)}")
    files: dict[str, InputFile] = {}
    for given in inputs:
        name = fspath(given)
        with reading(name):
            system, path = fsspec.core.url_to_fs(name)
            for one in _expand(system, path, name, output):
                full = one if isinstance(system, LocalFileSystem) else system.unstrip_protocol(one)
                if full not in files:
                    files[full] = _describe(system, one, full)
    return list(files.values())


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Have the errors of reading a file name it.

    Raises:
        InvalidInputError: the file cannot be read, or is damaged.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except (OSError, EOFError, ValueError, ImportError, NotImplementedError, pa.ArrowException) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:300]
        raise InvalidInputError(f"{name} cannot be read: {reason}") from error


def open_file(file: InputFile) -> pa.NativeFile:
    """Open a file as pyarrow reads it, its compression left alone."""
    system, path = fsspec.core.url_to_fs(file.path)
    if isinstance(system, LocalFileSystem):
        return pa.memory_map(path) if file.format == "arrow" else pa.OSFile(path)
    return pa.PythonFile(system.open(path, "rb"), mode="r")


def open_stream(file: InputFile, offset: int = 0) -> pa.NativeFile:
    """Open the bytes of a file from an offset on, decompressed; those before are read where it is compressed."""
    raw = open_file(file)
    if file.compression is None:
        raw.seek(offset)
        return raw
    stream = pa.CompressedInputStream(raw, file.compression)
    while offset:
        offset -= len(stream.read(min(offset, _SAMPLE_BYTES)))
    return stream


def kind_of(path: str) -> tuple[FileFormat, Compression | None] | None:
    """Return the format and the compression that a file's name says; None where it says none that is read."""
    *_, suffix = PurePosixPath(path).suffixes or [""]
    compression = _COMPRESSIONS.get(suffix.lower())
    bare = path[: -len(suffix)] if compression else path
    found = _FORMATS.get(PurePosixPath(bare).suffix.lower())
    if found is None or (compression and found in ("parquet", "arrow")):
        return None
    return found, compression


def _expand(system: Any, path: str, name: str, output: Path) -> list[str]:
    """Return the paths of files that a name stands for."""
    if system.isfile(path):
        return [path]
    if system.isdir(path):
        paths = [one for one in system.find(path) if not _is_hidden(one, path)]
    elif any(sign in name for sign in "*?["):
        paths = [one for one in system.glob(path) if system.isfile(one)]
    else:
        raise InvalidInputError(f"{name} does not exist: name a file, a folder, a pattern or a URL")
    if isinstance(system, LocalFileSystem):
        own = output.resolve()
        paths = [one for one in paths if own not in Path(one).resolve().parents]
    found = sorted(one for one in paths if kind_of(one))
    if not found:
        raise InvalidInputError(f"{name} holds no file that can be read; known are {_known()}")
    return found


def _is_hidden(path: str, folder: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(path[len(folder) :].lstrip("/")).parts)


def _describe(system: Any, path: str, full: str) -> InputFile:
    kind = kind_of(path)
    if kind is None:
        raise InvalidInputError(f"{full}: the name does not say how it holds rows; known are {_known()}")
    size = int(system.size(path))
    return InputFile(full, *kind, size, _hash(system, path, size, kind[0]))


def _hash(system: Any, path: str, size: int, kind: FileFormat) -> str:
    """Return the hash of a file's size and samples."""
    digest = hashlib.sha256(str(size).encode())
    with system.open(path, "rb") as file:
        last = max(size - _SAMPLE_BYTES, 0)
        for place in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
            file.seek(place)
            digest.update(file.read(_SAMPLE_BYTES))
        if kind == "parquet" and size > _FOOTER_END:
            file.seek(size - _FOOTER_END)
            footer = min(int.from_bytes(file.read(4), "little"), _LONGEST_FOOTER, size - _FOOTER_END)
            file.seek(size - _FOOTER_END - footer)
            digest.update(file.read(footer))
    return digest.hexdigest()


def _known() -> str:
    return f"{', '.join(_FORMATS)}; all but Parquet and Arrow also with {' or '.join(_COMPRESSIONS)}"
