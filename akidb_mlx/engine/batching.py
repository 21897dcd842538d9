"""Which sequences run together.

A batch is a rectangle of tokens, so sequences of like length go together, and the rectangle is bounded by a token
budget. For a GPU, which keeps kernels and memory for every shape it meets, lengths are padded to few distinct values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from akidb_mlx.engine.requests import Part

TokenIds = NDArray[np.int32]


@dataclass(frozen=True)
class Item:
    """One sequence that waits.

    Attributes:
        ids: its tokens, without the prefix of its request.
        part: where its vector goes.
        rows: in which rows of the part; several where a call holds a sequence more than once.
    """

    ids: TokenIds
    part: Part
    rows: list[int]


@dataclass
class Batch:
    """Sequences that run together.

    Attributes:
        prefix: tokens that all begin with, run once and not again for each.
        length: what all are padded to.
        limit: most tokens, padding included; a single longer sequence runs alone.
        aim: how many it should have; what brings it nearest to that is taken.
        most_padding: how many of them may be padding.
        waiting_for: the items of each distinct sequence, by its bytes. Equal sequences of several calls run once.
    """

    prefix: bytes
    length: int
    limit: int
    aim: float
    most_padding: int
    waiting_for: dict[bytes, list[Item]] = field(default_factory=dict)
    _padding: int = field(default=0, init=False)

    @property
    def size(self) -> int:
        """Number of distinct sequences."""
        return len(self.waiting_for)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes."""
        return self.size * self.length

    @property
    def tokens(self) -> int:
        """Those of them that are not padding."""
        return sum(len(items[0].ids) for items in self.waiting_for.values())

    @property
    def full(self) -> bool:
        """Whether another sequence would be too much."""
        return self.padded_tokens + self.length > self.limit or self.padded_tokens + self.length / 2 > self.aim

    def add(self, item: Item) -> bool:
        """Take an item that is not longer than `length`; False where it would be too much, or too much padding."""
        key = item.ids.tobytes()
        if key in self.waiting_for:
            self.waiting_for[key].append(item)
            return True
        gap = self.length - len(item.ids)
        if self.waiting_for and (self.full or self._padding + gap > self.most_padding):
            return False
        self.waiting_for[key] = [item]
        self._padding += gap
        return True

    def sequences(self) -> list[TokenIds]:
        """The distinct sequences, in the order of the rows that the model returns."""
        return [items[0].ids for items in self.waiting_for.values()]

    def items(self) -> Iterator[tuple[int, Item]]:
        """Every item with its row."""
        for row, items in enumerate(self.waiting_for.values()):
            for item in items:
                yield row, item

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the sequences each."""
        entries = list(self.waiting_for.items())
        middle = len(entries) // 2
        return replace(self, waiting_for=dict(entries[:middle])), replace(self, waiting_for=dict(entries[middle:]))


def padded_length(length: int, limit: int) -> int:
    """`length`, or the next larger one whose binary form has at most its first four bits set; `limit` at most.

    That is every length to 16, every second to 32, every fourth to 64, …: 8 lengths for each doubling, and at most an
    eighth of a row is padding.
    """
    step = 1 << max(length.bit_length() - 4, 0)
    return min(-(-length // step) * step, limit)
