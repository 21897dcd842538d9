"""The choice of sequences that run together.

A batch is a rectangle of tokens, so sequences of like length go together, and the rectangle is bounded by a token
budget. For a GPU, which keeps kernels and memory for every shape it meets, lengths are padded to few distinct values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from akidb_mlx.engine.backend import BatchKey, ModelFacts, TokenRows
from akidb_mlx.vectors import TokenIds

# Tokens that a prefix must have for a batch of its own to pay.
MIN_PREFIX = 8


class TokenSequence(Protocol):
    """Something with token ids that waits to be computed."""

    @property
    def ids(self) -> TokenIds:
        """Return the tokens, without the prefix of the batch."""
        ...

    @property
    def lengths(self) -> TokenIds | None:
        """Return, for a packed sequence, the length of each of those that it holds one after another; else None."""
        ...

    @property
    def segment(self) -> int:
        """Return how many leading tokens are of the first token type; 0 where the model is not told of types."""
        ...


Sequence = TypeVar("Sequence", bound=TokenSequence)


@dataclass
class Batch(Generic[Sequence]):
    """Sequences that run together.

    Attributes:
        key: all that they have in common; a prefix is computed once and not again for each.
        length: the length that all are padded to.
        limit: most tokens, padding included; a single longer sequence runs alone.
        target: the number of tokens that the batch should come nearest to.
        most_padding: how many of them may be padding.
        waiting_for: for the segment and the bytes of each distinct sequence, those that wait for its vector. Equal
            sequences of several calls are computed once.
    """

    key: BatchKey
    length: int
    limit: int
    target: float
    most_padding: int
    waiting_for: dict[tuple[int, bytes], list[Sequence]] = field(default_factory=dict)
    _padding: int = field(default=0, init=False)

    @property
    def size(self) -> int:
        """Return the number of distinct sequences."""
        return len(self.waiting_for)

    @property
    def padded_tokens(self) -> int:
        """Return the number of tokens that the model computes."""
        return self.size * self.length

    @property
    def tokens(self) -> int:
        """Return the number of those that are not padding."""
        return sum(len(sequences[0].ids) for sequences in self.waiting_for.values())

    @property
    def vectors(self) -> int:
        """Return the number of vectors that the model computes."""
        return self.size

    @property
    def full(self) -> bool:
        """Return whether another sequence would be too much."""
        return self.padded_tokens + self.length > self.limit or self.padded_tokens + self.length / 2 > self.target

    def add(self, sequence: Sequence) -> bool:
        """Add a sequence that is not longer than `length`; return False where it would be too much, or too padded."""
        key = sequence.segment, sequence.ids.tobytes()
        if key in self.waiting_for:
            self.waiting_for[key].append(sequence)
            return True
        gap = self.length - len(sequence.ids)
        if self.waiting_for and (self.full or self._padding + gap > self.most_padding):
            return False
        self.waiting_for[key] = [sequence]
        self._padding += gap
        return True

    def token_rows(self) -> TokenRows:
        """Return the distinct sequences as the backend takes them, in the order of the rows that it returns."""
        ids = np.full((self.size, self.length), self.key.padding, np.int32)
        lengths, segments = np.empty((2, self.size), np.int32)
        for row, (sequence, *_) in enumerate(self.waiting_for.values()):
            lengths[row], segments[row] = len(sequence.ids), sequence.segment
            ids[row, : len(sequence.ids)] = sequence.ids
        key = self.key
        types = segments if segments.any() else None
        return TokenRows(ids, lengths, np.frombuffer(key.prefix, np.int32), key.unpooled, key.route, types)

    def rows(self) -> Iterator[tuple[int | slice, Sequence]]:
        """Yield every sequence with the row of its vector, or the rows of its vectors."""
        for row, sequences in enumerate(self.waiting_for.values()):
            for sequence in sequences:
                yield row, sequence

    def halves(self) -> tuple[Batch[Sequence], Batch[Sequence]]:
        """Return two batches of half the sequences each."""
        entries = list(self.waiting_for.items())
        middle = len(entries) // 2
        return replace(self, waiting_for=dict(entries[:middle])), replace(self, waiting_for=dict(entries[middle:]))


class PackedBatch(Batch[Sequence]):
    """Packed sequences that run together, for a model that needs no padding."""

    @property
    def padded_tokens(self) -> int:
        """Return the number of tokens that the model computes."""
        return self.tokens

    @property
    def vectors(self) -> int:
        """Return the number of vectors that the model computes."""
        return sum(len(_lengths(sequence)) for sequence in self._distinct())

    @property
    def full(self) -> bool:
        """Return whether another sequence would be too much."""
        return self.tokens >= self.target

    def add(self, sequence: Sequence) -> bool:
        """Add a sequence; return False where it would be too much."""
        key = 0, sequence.ids.tobytes() + _lengths(sequence).tobytes()
        if key not in self.waiting_for and self.waiting_for and self.tokens + len(sequence.ids) > self.limit:
            return False
        self.waiting_for.setdefault(key, []).append(sequence)
        return True

    def token_rows(self) -> TokenRows:
        """Return the sequences one after another; see `Batch.token_rows`."""
        distinct = self._distinct()
        ids = np.concatenate([sequence.ids for sequence in distinct])
        lengths = np.concatenate([_lengths(sequence) for sequence in distinct])
        return TokenRows(ids[None], lengths, np.empty(0, np.int32))

    def rows(self) -> Iterator[tuple[int | slice, Sequence]]:
        """Yield every sequence with the rows of its vectors."""
        start = 0
        for sequences in self.waiting_for.values():
            stop = start + len(_lengths(sequences[0]))
            for sequence in sequences:
                yield slice(start, stop), sequence
            start = stop

    def _distinct(self) -> list[Sequence]:
        return [sequences[0] for sequences in self.waiting_for.values()]


def _lengths(sequence: TokenSequence) -> TokenIds:
    assert sequence.lengths is not None
    return sequence.lengths


def padded_length(length: int, facts: ModelFacts, floor: int = 0) -> int:
    """Return the length that a sequence is padded to before it joins others, `floor` at least.

    Where lengths are to be few, that is `length` or the next larger one whose binary form has at most its first four
    bits set, `max_tokens` at most: every length to 16, every second to 32, every fourth to 64, …. There are 8 lengths
    for each doubling, and at most an eighth of a row is padding.
    """
    if facts.packed:
        return 1  # there is no length that packed sequences must share
    length = max(length, floor)
    if not facts.bucket_lengths:
        return length
    step = 1 << max(length.bit_length() - 4, 0)
    return min(-(-length // step) * step, facts.max_tokens)
