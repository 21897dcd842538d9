"""The vectors of texts' tokens, and the score of a document for a query by them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.vectors import Vectors

# Most products of tokens that are held at once: 64 MB.
_MAX_PRODUCTS = 1 << 24


@dataclass(frozen=True, eq=False, repr=False)
class MultiVectorBatch:
    """The result of one call. Batches compare and hash by identity.

    `batch[i]` holds the vectors of text i, and `len(batch)` is the number of texts.

    Attributes:
        vectors: for each text (tokens, dimension) float32; the numbers of tokens differ.
        dimension: size of a vector.
        token_counts: tokens that the model read of each text, its prompt and special tokens included. A query may have
            more vectors, of the tokens that are appended to it, and a document less, without punctuation.
        truncated: for each text, whether tokens were cut off.
        model: name of the model.
    """

    vectors: list[Vectors]
    dimension: int
    token_counts: list[int]
    truncated: list[bool]
    model: str

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.vectors)

    @overload
    def __getitem__(self, index: int) -> Vectors: ...
    @overload
    def __getitem__(self, index: slice) -> list[Vectors]: ...
    def __getitem__(self, index: int | slice) -> Vectors | list[Vectors]:
        """Return the vectors of a text, or those of several."""
        return self.vectors[index]

    def __iter__(self) -> Iterator[Vectors]:
        """Yield the vectors of each text."""
        return iter(self.vectors)

    def __repr__(self) -> str:
        count = len(self)
        return (
            f"<MultiVectorBatch of {count} text{'' if count == 1 else 's'} by {reprlib.repr(self.model)}: "
            f"{sum(map(len, self.vectors))} vectors of {self.dimension}, {sum(self.truncated)} truncated>"
        )


def max_similarity(queries: Iterable[Vectors], documents: Iterable[Vectors], mean: bool) -> Vectors:
    """Return the score of each document for each query: each query token's largest product, added up (MaxSim).

    Args:
        queries: for each (tokens, dimension).
        documents: likewise.
        mean: whether a score is divided by the query's number of tokens.

    Returns:
        (queries, documents) float32.

    Raises:
        InvalidInputError: something is no matrix of vectors, has none, or they are of different sizes.
    """
    given = {"queries": _list("queries", queries), "documents": _list("documents", documents)}
    if len(sizes := {array.shape[1] for arrays in given.values() for array in arrays}) > 1:
        raise InvalidInputError(f"vectors of {' and '.join(map(str, sorted(sizes)))} values cannot be compared")
    scores = np.zeros((len(given["queries"]), len(given["documents"])), np.float32)
    longest = max(map(len, given["queries"]), default=1)
    for start, block in _blocks(given["documents"], _MAX_PRODUCTS // longest):
        tokens = np.concatenate(block)
        starts = np.cumsum([0, *map(len, block[:-1])])
        for row, query in zip(scores, given["queries"], strict=True):
            best = np.maximum.reduceat(query @ tokens.T, starts, axis=1).sum(axis=0)
            row[start : start + len(block)] = best / len(query) if mean else best
    return scores


def _list(name: str, arrays: Iterable[Vectors]) -> list[Vectors]:
    listed = [np.asarray(array, np.float32) for array in arrays]
    for index, array in enumerate(listed):
        if array.ndim != 2 or not len(array):
            raise InvalidInputError(
                f"{name} must be matrices (tokens, dimension) of one token or more; {index} has shape {array.shape}",
                index,
            )
    return listed


def _blocks(arrays: Sequence[Vectors], tokens: int) -> Iterator[tuple[int, Sequence[Vectors]]]:
    """Yield arrays that have no more tokens together, or a single one, with the index of the first."""
    start = count = 0
    for end, array in enumerate(arrays):
        if end > start and count + len(array) > tokens:
            yield start, arrays[start:end]
            start, count = end, 0
        count += len(array)
    if start < len(arrays):
        yield start, arrays[start:]
