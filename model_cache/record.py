"""The record of a model in the cache, kept beside its files as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from model_cache.files import check_file_name, list_names, open_regular, select_needed, sha256, write_atomically

NAME = ".akidb-model.json"


class FileRecord(BaseModel):
    """One file, as it was when it was verified."""

    model_config = ConfigDict(frozen=True)

    size: NonNegativeInt
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Return the record of a file as it is now; reads it."""
        return cls(size=path.stat().st_size, sha256=sha256(path))

    def describes(self, path: Path, *, check_hash: bool) -> bool:
        """Return whether a file has the recorded size and, if asked, the recorded hash.

        Raises:
            PermissionError: it may not be read, so nobody knows.
        """
        try:
            found = path.stat()
            same_size = S_ISREG(found.st_mode) and found.st_size == self.size
            return same_size and (not check_hash or sha256(path) == self.sha256)
        except PermissionError:
            raise
        except OSError:
            return False


class CacheRecord(BaseModel):
    """The properties of a model in the cache.

    Attributes:
        version: of the record's format.
        repo_id: the repository.
        commit: its 40 hexadecimal digits.
        refs: branches and tags that pointed to the commit when the Hub was last asked.
        files: all files of the model by name.
        source: "hub" if it was downloaded, "hub-cache" if it was linked from the Hub's own cache, "files" if the
            record was lost and rebuilt from the files.
        licence: the one that the repository declares.
        created: when the record was made, in seconds since the epoch.
        pinned: whether it is exempt from eviction.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    repo_id: str
    commit: str
    refs: tuple[str, ...] = ()
    files: dict[str, FileRecord]
    source: Literal["hub", "hub-cache", "files"]
    licence: str | None = None
    created: float
    pinned: bool = False

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files.values())

    def find_damaged(self, folder: Path, *, check_hashes: bool = False) -> list[str]:
        """Return the names of files that are missing or changed, by size; checking hashes reads every file."""
        return [name for name, file in self.files.items() if not file.describes(folder / name, check_hash=check_hashes)]

    def write(self, folder: Path) -> None:
        """Write the record into the model's folder."""
        write_atomically(folder / NAME, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, folder: Path) -> CacheRecord | None:
        """Return the record in a folder, None if there is none or it is damaged.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with open_regular(folder / NAME) as file:
                record = cls.model_validate_json(file.read())
            for name in record.files:
                check_file_name(name)
        except (FileNotFoundError, ValidationError, ValueError):
            return None
        return record

    @classmethod
    def from_files(
        cls,
        folder: Path,
        repo_id: str,
        commit: str,
        source: Literal["hub", "hub-cache", "files"],
        refs: tuple[str, ...] = (),
        licence: str | None = None,
    ) -> CacheRecord:
        """Make a record of the files that a folder holds now; reads each of them."""
        names = select_needed(list_names(folder))
        files = {name: FileRecord.of(folder / name) for name in names}
        return cls(
            repo_id=repo_id,
            commit=commit,
            refs=refs,
            files=files,
            source=source,
            licence=licence,
            created=time.time(),
        )
