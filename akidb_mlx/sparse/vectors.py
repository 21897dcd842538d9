"""Sparse vectors, the last steps that make them, and their similarity."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import InferenceError, InvalidInputError
from akidb_mlx.vectors import SPARSE, Vectors


class SparseVector(NamedTuple):
    """The entries of a vector that are not zero.

    Attributes:
        indices: (entries,) int32, ascending: the ids of tokens.
        values: (entries,) float32, their weights.
    """

    indices: NDArray[np.int32]
    values: Vectors


@dataclass(frozen=True, eq=False, repr=False)
class SparseBatch:
    """The result of one call: a matrix of compressed sparse rows (CSR). Batches compare and hash by identity.

    `batch[i]` is the vector of text i, and `len(batch)` the number of texts.

    Attributes:
        indices: (entries,) int32, the ids of the tokens of all texts, one text after another; ascending in each.
        values: (entries,) float32, their weights.
        offsets: (texts + 1,) int64: text i has the entries from `offsets[i]` up to `offsets[i + 1]`.
        dimension: size of a vector: how many tokens the vocabulary has.
        token_counts: tokens that the model read of each text, its prompt and special tokens included.
        truncated: for each text, whether tokens were cut off.
        model: name of the model.
    """

    indices: NDArray[np.int32]
    values: Vectors
    offsets: NDArray[np.int64]
    dimension: int
    token_counts: list[int]
    truncated: list[bool]
    model: str

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> SparseVector: ...
    @overload
    def __getitem__(self, index: slice) -> list[SparseVector]: ...
    def __getitem__(self, index: int | slice) -> SparseVector | list[SparseVector]:
        """Return the vector of a text, or those of several."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        entries = slice(self.offsets[number], self.offsets[number + 1])
        return SparseVector(self.indices[entries], self.values[entries])

    def __iter__(self) -> Iterator[SparseVector]:
        """Yield the vector of each text."""
        return (self[index] for index in range(len(self)))

    def to_dense(self) -> Vectors:
        """Return the vectors as a matrix (texts, dimension), mostly of zeros."""
        dense = np.zeros((len(self), self.dimension), np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.indices] = self.values
        return dense

    def __repr__(self) -> str:
        count = len(self)
        return (
            f"<SparseBatch of {count} text{'' if count == 1 else 's'} by {reprlib.repr(self.model)}: "
            f"{len(self.values)} entries, {sum(self.token_counts)} tokens, {sum(self.truncated)} truncated>"
        )


def finish_rows(
    rows: Sequence[NDArray[Any]], windows: Sequence[int], max_active_dims: int | None, first: int
) -> list[NDArray[Any]]:
    """Take the largest weights of each text's windows, and of those the largest ones.

    Args:
        rows: (entries,) of `SPARSE` for each window of each text.
        windows: for each text in order, how many windows it has.
        max_active_dims: how many entries of a text are kept at most; None for all.
        first: the index, in the caller's list, of the first of the texts.

    Raises:
        InferenceError: a weight is not finite; the text's index is named.
    """
    finished, start = [], 0
    for index, count in enumerate(windows, first):
        row = rows[start] if count == 1 else _largest(rows[start : start + count])
        start += count
        if not np.isfinite(row["value"]).all():
            raise InferenceError(
                f"the model's weights for text {index} are not finite; the model may be damaged, or the precision too "
                "narrow for this text (try precision float32)",
                index,
            )
        if max_active_dims is not None and len(row) > max_active_dims:
            row = row[np.sort(np.argsort(-np.abs(row["value"]), kind="stable")[:max_active_dims])]
        finished.append(row)
    return finished


def _largest(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the largest value of each index in several rows."""
    joined = np.concatenate(rows)
    indices, places = np.unique(joined["index"], return_inverse=True)
    largest = np.empty(len(indices), SPARSE)
    largest["index"], largest["value"] = indices, -np.inf
    np.maximum.at(largest["value"], places, joined["value"])
    return largest


def similarity(first: SparseBatch, second: SparseBatch, function: str) -> Vectors:
    """Return the similarity of each vector of one batch with each of another, (texts, texts) float32.

    Args:
        first: vectors.
        second: others of the same dimension.
        function: "dot" or "cosine".

    Raises:
        InvalidInputError: they are no sparse vectors, or of different dimensions.
    """
    for batch in (first, second):
        if not isinstance(batch, SparseBatch):
            raise InvalidInputError(f"similarity takes two SparseBatch, found {type(batch).__name__}")
    if first.dimension != second.dimension:
        raise InvalidInputError(f"vectors of {first.dimension} and of {second.dimension} dimensions cannot be compared")
    products = np.zeros((len(first), len(second)), np.float32)
    filled = np.flatnonzero(np.diff(second.offsets))  # `reduceat` would give an empty row the entry of the next
    dense = np.zeros(second.dimension, np.float32)
    for row, vector in zip(products, first, strict=True):
        if len(filled):
            dense[vector.indices] = vector.values
            row[filled] = np.add.reduceat(dense[second.indices] * second.values, second.offsets[filled])
            dense[vector.indices] = 0
    if function == "cosine":
        products /= np.maximum(np.outer(_lengths(first), _lengths(second)), np.finfo(np.float32).tiny)
    return products


def _lengths(batch: SparseBatch) -> Vectors:
    return np.array([np.linalg.norm(vector.values) for vector in batch], np.float32)
