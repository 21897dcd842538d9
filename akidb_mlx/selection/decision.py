"""The choice for one query, with what speaks for it."""

from __future__ import annotations

from typing import NamedTuple


class Decision(NamedTuple):
    """A selector's choice for one query.

    Attributes:
        label: the choice.
        scores: as `Selector.score_list` has them.
        reasons: in words.
    """

    label: str
    scores: list[tuple[str, float]]
    reasons: list[str]
