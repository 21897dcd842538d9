"""Eviction of the least recently used models when the cache is full: a plan first, shown or carried out afterwards."""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from model_cache.config import CacheConfig
from model_cache.errors import CacheLockedError
from model_cache.store import Store
from model_cache.stored_model import StoredModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model, as far as the planner needs to know it.

    Attributes:
        name: `org/repo@commit`.
        size: bytes that deleting it frees.
        last_used: seconds since the epoch.
        pinned: whether it is exempt from eviction.
        in_use: whether a process has it open.
    """

    name: str
    size: int
    last_used: float
    pinned: bool = False
    in_use: bool = False


@dataclass(frozen=True)
class Removal:
    """One model that is deleted, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class EvictionPlan:
    """The models to delete, in order.

    Attributes:
        removals: the models.
        freed: their bytes.
        short: bytes over the limit that remain after all removals, because the other models must stay.
    """

    removals: tuple[Removal, ...]
    freed: int
    short: int


def plan_eviction(models: Sequence[Candidate], max_bytes: int | None, incoming: int = 0) -> EvictionPlan:
    """Choose the least recently used models to delete so that the others, with what comes in, fit the limit.

    Models that are pinned or in use stay, whatever the limit.

    Args:
        models: all models in the cache.
        max_bytes: the limit; None for none.
        incoming: bytes that are about to be added.
    """
    excess = 0 if max_bytes is None else sum(model.size for model in models) + incoming - max_bytes
    return _choose(models, excess, "over the limit")


def _choose(models: Sequence[Candidate], excess: int, why: str) -> EvictionPlan:
    removals: list[Removal] = []
    for model in sorted(models, key=lambda model: (model.last_used, model.name)):
        if excess <= 0:
            break
        if not (model.pinned or model.in_use):
            removals.append(Removal(model.name, model.size, f"least recently used, {excess} bytes {why}"))
            excess -= model.size
    return EvictionPlan(tuple(removals), sum(removal.size for removal in removals), max(0, excess))


class Evictor:
    """Plans and carries out eviction in a store."""

    def __init__(self, store: Store, config: CacheConfig) -> None:
        self._store = store
        self._config = config

    def limit(self) -> int | None:
        """Return the most bytes that models may take, None where there is no limit."""
        return self._config.limit()

    def plan(self, max_bytes: int | None = None, incoming: int = 0, replaced: str = "") -> EvictionPlan:
        """Plan an eviction for the limit.

        Args:
            max_bytes: takes the place of the cache's own limit.
            incoming: bytes that are about to be added.
            replaced: the name of a model in whose place they come.
        """
        candidates = [_candidate(model, model.record.size) for model in self._store.all() if model.name != replaced]
        return plan_eviction(candidates, self._config.limit() if max_bytes is None else max_bytes, incoming)

    def plan_for_disk(self, lacking: int, replaced: str = "") -> EvictionPlan:
        """Plan an eviction that frees a number of bytes on the disk."""
        candidates = [_candidate(model, _bytes_alone(model)) for model in self._store.all() if model.name != replaced]
        return _choose([one for one in candidates if one.size], lacking, "lacking on the disk")

    def carry_out(self, plan: EvictionPlan) -> EvictionPlan:
        """Delete the models of a plan that are still there, unless they were opened or pinned meanwhile.

        One that cannot be deleted stays, with a warning.

        Returns:
            What this process deleted. What another one deleted meanwhile is neither freed nor short.
        """
        models = {model.name: model for model in self._store.all()}
        removed: list[Removal] = []
        kept = 0
        for removal in plan.removals:
            if removal.name in models:
                outcome = self._remove(models[removal.name])
                if outcome == "deleted":
                    removed.append(removal)
                elif outcome != "gone":
                    kept += removal.size
        return EvictionPlan(tuple(removed), sum(removal.size for removal in removed), plan.short + kept)

    def _remove(self, model: StoredModel) -> str:
        try:
            return self._store.remove(model)
        except (OSError, CacheLockedError) as error:
            logger.warning("%s cannot be removed and stays: %s", model.name, error)
            return "failed"


def _candidate(model: StoredModel, size: int) -> Candidate:
    return Candidate(model.name, size, model.last_used, model.record.pinned, model.in_use)


def _bytes_alone(model: StoredModel) -> int:
    """Return the bytes of the files that no other model shares, which deleting a model frees on the disk.

    Files that another process removes meanwhile are not counted.
    """
    total = 0
    for name in model.record.files:
        with suppress(FileNotFoundError, NotADirectoryError):
            found = (model.path / name).stat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                total += found.st_size
    return total
