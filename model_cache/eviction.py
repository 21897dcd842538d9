"""What must go when the cache is full: a plan first, shown or executed afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """What the planner knows of a model.

    Attributes:
        name: `org/repo@commit`.
        size: bytes that deleting it frees.
        last_used: seconds since the epoch.
        pinned: whether its user wants it to stay.
        in_use: whether a process has it open.
    """

    name: str
    size: int
    last_used: float
    pinned: bool = False
    in_use: bool = False


@dataclass(frozen=True)
class Removal:
    """One model that goes, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class EvictionPlan:
    """What goes, in this order.

    Attributes:
        removals: the models.
        freed: their bytes.
        short: bytes that are still too many when all of them are gone, because the rest must stay.
    """

    removals: tuple[Removal, ...]
    freed: int
    short: int


def plan_eviction(models: Sequence[Candidate], max_bytes: int | None, incoming: int = 0) -> EvictionPlan:
    """The least recently used models that must go so that all, with what comes in, take at most `max_bytes`.

    What is pinned or in use stays, whatever the bound.

    Args:
        models: all that the cache holds.
        max_bytes: the bound; None for none.
        incoming: bytes that are about to be added.
    """
    excess = 0 if max_bytes is None else sum(model.size for model in models) + incoming - max_bytes
    removals: list[Removal] = []
    for model in sorted(models, key=lambda model: (model.last_used, model.name)):
        if excess <= 0:
            break
        if not (model.pinned or model.in_use):
            removals.append(Removal(model.name, model.size, f"least recently used, {excess} bytes over the limit"))
            excess -= model.size
    return EvictionPlan(tuple(removals), sum(removal.size for removal in removals), max(0, excess))
