"""A model in the cache, as it is shown to callers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model_cache.stored_model import StoredModel


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache.

    Attributes:
        name: `org/repo@commit`.
        repo_id: the repository.
        commit: its 40 hexadecimal digits.
        refs: branches and tags that pointed to the commit when the Hub was last asked.
        path: the folder of its files.
        size: bytes of its files.
        last_used: when it was last opened, in seconds since the epoch.
        pinned: whether it is exempt from eviction.
        in_use: whether a process has it open.
        damaged: names of files that are missing or of the wrong size.
        source: "hub" if it was downloaded, "hub-cache" if it was linked from the Hub's own cache, "files" if its
            record was lost and rebuilt.
        licence: the one that the repository declares.
    """

    name: str
    repo_id: str
    commit: str
    refs: tuple[str, ...]
    path: Path
    size: int
    last_used: float
    pinned: bool
    in_use: bool
    damaged: tuple[str, ...]
    source: str
    licence: str | None


def describe(model: StoredModel) -> CachedModel:
    """Return what is shown of a model: its record, and its state now."""
    record = model.record
    return CachedModel(
        name=model.name,
        repo_id=record.repo_id,
        commit=record.commit,
        refs=record.refs,
        path=model.path,
        size=record.size,
        last_used=model.last_used,
        pinned=record.pinned,
        in_use=model.in_use,
        damaged=model.damaged,
        source=record.source,
        licence=record.licence,
    )
