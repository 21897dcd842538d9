"""What is known of a model that lies in the cache, kept beside its files as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from model_cache.files import check_file_name, needed, sha256, write_atomically

NAME = ".akidb-model.json"


class FileRecord(BaseModel):
    """One file, as it was when it was verified."""

    model_config = ConfigDict(frozen=True)

    size: NonNegativeInt
    sha256: str


class CacheRecord(BaseModel):
    """A model in the cache.

    Attributes:
        version: of this form of record.
        repo_id: the repository.
        commit: its 40 hexadecimal digits.
        refs: branches and tags that pointed to it when they were last asked for.
        files: by name, all that belong to it.
        source: "hub" where it was downloaded, "hub-cache" where it was adopted from the Hub's own cache, "files" where
            the record was lost and made anew.
        licence: what the repository declares.
        created: seconds since the epoch.
        pinned: whether eviction passes it over.
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
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def damaged(self, folder: Path, *, hashes: bool = False) -> list[str]:
        """The names of files that are not there or not the recorded ones: by size, or by hash, which reads them all."""
        return [name for name, file in self.files.items() if not _is(folder / name, file, hashes)]

    def write(self, folder: Path) -> None:
        """Keep it beside the files."""
        write_atomically(folder / NAME, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, folder: Path) -> CacheRecord | None:
        """The record in a folder, None where there is none or it is damaged."""
        try:
            record = cls.model_validate_json((folder / NAME).read_bytes())
            for name in record.files:
                check_file_name(name)
        except (OSError, ValidationError, ValueError):
            return None
        return record

    @classmethod
    def of_files(
        cls,
        folder: Path,
        repo_id: str,
        commit: str,
        source: Literal["hub", "hub-cache", "files"],
        refs: tuple[str, ...] = (),
        licence: str | None = None,
    ) -> CacheRecord:
        """A record of what lies in a folder now; reads every file."""
        names = needed(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = {name: FileRecord(size=(folder / name).stat().st_size, sha256=sha256(folder / name)) for name in names}
        return cls(
            repo_id=repo_id,
            commit=commit,
            refs=refs,
            files=files,
            source=source,
            licence=licence,
            created=time.time(),
        )


def _is(path: Path, file: FileRecord, hashes: bool) -> bool:
    try:
        return path.stat().st_size == file.size and (not hashes or sha256(path) == file.sha256)
    except OSError:
        return False
