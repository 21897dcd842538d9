"""The manifest of a job, and the records of the shards that are done.

DIR/shard-000000.parquet …   the shards, each from the moment when all of it is on the disk
DIR/manifest.json            the job; written when it begins, when it stops and when it is complete
DIR/rejected.jsonl           the rows that were refused, likewise
DIR/.work/                   a record of each shard that is done, and files that are being written; until the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from akidb_mlx.bulk.reports import Rejected
from akidb_mlx.errors import ConfigurationError, InvalidInputError
from akidb_mlx.options import shown
from model_cache import locks
from model_cache.files import write_atomically

FORMAT, VERSION = "akidb-mlx-bulk", 1
_MANIFEST, _REJECTED, _WORK, _LOCK = "manifest.json", "rejected.jsonl", ".work", "lock"
# The parts of a manifest that must not change between two runs, each with the name that a message gives it.
_FIXED = {"model": "the model", "options": "the options", "inputs": "the input"}
# The facts of those that may: a file or a model may be found elsewhere, or by another name.
_FREE = ("name", "path", "device")


@dataclass(frozen=True)
class ShardFile:
    """A file of a shard, whole on the disk."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is done.

    Attributes:
        shard: its number.
        read: rows of the input that it covers.
        rows: rows that it holds.
        skipped: rows without a text.
        tokens: tokens that the model read.
        truncated: texts that were cut.
        files: its files.
        seconds: how long it was under way.
        finished: when it was done.
        rejected: the rows that were refused.
    """

    shard: int
    read: int
    rows: int
    skipped: int
    tokens: int
    truncated: int
    files: tuple[ShardFile, ...]
    seconds: float
    finished: str
    rejected: tuple[Rejected, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShardRecord:
        """Return the record that `as_json` gave."""
        files = tuple(ShardFile(**one) for one in values["files"])
        rejected = tuple(Rejected(**one) for one in values["rejected"])
        return cls(**{**values, "files": files, "rejected": rejected})


class JobFolder:
    """The output folder of a job.

    Attributes:
        path: the folder.
        work: the folder in it for what is under way.
    """

    def __init__(self, path: Path) -> None:
        """Name a folder; nothing is made of it yet."""
        self.path = path
        self.work = path / _WORK

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder, and hold it for one job.

        Raises:
            ConfigurationError: it cannot be written, or another job writes it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if self._holds_foreign_shards():
            raise ConfigurationError(
                f"output {self.path} holds shards and no {_MANIFEST}: name an empty folder, or delete them"
            )
        with ExitStack() as held:
            with writing(self.path):
                self.work.mkdir(exist_ok=True)
                try:
                    held.enter_context(locks.exclusive(self.work / _LOCK, 0))
                except locks.LockTimeoutError as error:
                    raise ConfigurationError(
                        f"output {self.path}: another job is writing it; wait for its end, or name another folder"
                    ) from error
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest of the job that wrote the folder, or None.

        Raises:
            ConfigurationError: it cannot be read.
        """
        path = self.path / _MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}; begin anew with fresh, or restore it") from error
        if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise ConfigurationError(
                f"{path} is no manifest of this version ({FORMAT} {VERSION}): begin anew with fresh, or elsewhere"
            )
        return manifest

    def read_records(self, manifest: Mapping[str, Any]) -> dict[int, ShardRecord]:
        """Return the records of the shards whose files are there."""
        records: dict[int, ShardRecord] = {}
        rejected: dict[int, list[Any]] = {}
        with writing(self.path):
            if (path := self.path / _REJECTED).exists():
                for line in path.read_text(encoding="utf-8").splitlines():
                    one = json.loads(line)
                    rejected.setdefault(one["shard"], []).append(one)
            for values in manifest["shards"]:
                own = rejected.get(values["shard"], [])
                if len(own) == values["rejected"]:
                    record = ShardRecord.from_json({**values, "rejected": own})
                    records[record.shard] = record
            for path in self.work.glob("record-*.json"):
                record = ShardRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
                records[record.shard] = record
        return {shard: one for shard, one in records.items() if all(map(self._is_whole, one.files))}

    def write_record(self, record: ShardRecord) -> None:
        """Note that a shard is done, whose files are on the disk."""
        write_atomically(self.work / f"record-{record.shard:06}.json", json.dumps(record.as_json()))

    def write_manifest(
        self, manifest: Mapping[str, Any], records: Mapping[int, ShardRecord], others: Iterable[Rejected] = ()
    ) -> None:
        """Write the manifest with the shards that are done, and the rows that were refused in them and in `others`."""
        done = [records[shard] for shard in sorted(records)]
        refused = [*(one for record in done for one in record.rejected), *others]
        lines = [json.dumps(one.as_json(), ensure_ascii=False) + "\n" for one in refused]
        shards = [{**record.as_json(), "rejected": len(record.rejected)} for record in done]
        with writing(self.path):
            if lines or (self.path / _REJECTED).exists():
                write_atomically(self.path / _REJECTED, "".join(lines))
            write_atomically(self.path / _MANIFEST, json.dumps({**manifest, "shards": shards}, indent=1) + "\n")

    def clear(self) -> None:
        """Delete what a job wrote here, the manifest last."""
        with writing(self.path):
            for path in [*self.path.glob("shard-*"), self.path / _REJECTED]:
                path.unlink(missing_ok=True)
            self._clear_work()
            (self.path / _MANIFEST).unlink(missing_ok=True)

    def drop_unfinished(self) -> None:
        """Delete the files that were being written when a job was ended."""
        with writing(self.path):
            for path in self.work.iterdir():
                if path.suffix == ".partial" or path.name.startswith("."):
                    _delete(path)
            for name in (_MANIFEST, _REJECTED):
                for path in self.path.glob(f".{name}.*"):
                    _delete(path)

    def drop_work(self) -> None:
        """Delete the records of a job that is complete: its manifest has them all."""
        with writing(self.path):
            self._clear_work()
            shutil.rmtree(self.work)

    def _clear_work(self) -> None:
        for path in self.work.iterdir():
            if path.name != _LOCK:
                _delete(path)

    def _holds_foreign_shards(self) -> bool:
        return not (self.path / _MANIFEST).exists() and any(self.path.glob("shard-*"))

    def _is_whole(self, file: ShardFile) -> bool:
        try:
            return (self.path / file.name).stat().st_size == file.bytes
        except FileNotFoundError:
            return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have the errors of writing name the output.

    Raises:
        ConfigurationError: the folder cannot be written, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"output {path} cannot be written: {reason}; what is done is kept, and the same job goes on from there"
        ) from error


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a job that is not the one that was begun.

    Raises:
        InvalidInputError: the model, an option or the input is another; the message names it.
    """
    for part, name in _FIXED.items():
        then, there = _comparable(before[part]), _comparable(now[part])
        if then == there:
            continue
        if isinstance(then, list):
            at = next((i for i, pair in enumerate(zip(then, there, strict=False)) if pair[0] != pair[1]), None)
            files = now[part] if at is not None else []
            detail = (
                f"{files[at]['path']} is not what it was"
                if at is not None
                else f"there were {len(then)} files, and there are {len(there)}"
            )
        else:
            changed = [key for key in then if then[key] != there.get(key)]
            detail = ", ".join(f"{key} was {shown(then[key])} and is {shown(there.get(key))}" for key in changed)
        raise InvalidInputError(
            f"{name} changed since this job was begun: {detail}; restore it, begin anew with fresh, or elsewhere"
        )


def now() -> str:
    """Return the time as the manifest holds it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _comparable(part: Any) -> Any:
    if isinstance(part, list):
        return [_comparable(one) for one in part]
    return {key: value for key, value in part.items() if key not in _FREE}
