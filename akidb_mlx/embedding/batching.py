"""Which sequences run together.

A batch is a rectangle of tokens, so sequences of like length go together, and the sum over a batch is bounded by a
token budget. Lengths are padded to few distinct values because a GPU keeps kernels and memory for every shape it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Sequences that run together.

    Attributes:
        indices: their positions in the call.
        length: what all are padded to.
    """

    indices: list[int]
    length: int


def padded_length(length: int, limit: int) -> int:
    """`length`, or the next larger one whose binary form has at most its first four bits set; `limit` at most.

    That is every length to 16, every second to 32, every fourth to 64, …: 8 lengths for each doubling, and at most an
    eighth of a row is padding.
    """
    step = 1 << max(length.bit_length() - 4, 0)
    return min(-(-length // step) * step, limit)


def plan_batches(lengths: Sequence[int], token_budget: int, max_tokens: int) -> list[Batch]:
    """Sort sequences by length, longest first, and cut where the next would leave the budget.

    Args:
        lengths: the length of each sequence, 1 or more.
        token_budget: most tokens in a batch, padding included; a single longer sequence runs alone.
        max_tokens: the model's limit, which padding does not exceed either.

    Returns:
        Batches that hold every index once.
    """
    batches: list[Batch] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        current = batches[-1] if batches else None
        if current is None or (len(current.indices) + 1) * current.length > token_budget:
            current = Batch([], padded_length(lengths[index], max_tokens))
            batches.append(current)
        current.indices.append(index)
    return batches
