"""Arrays of tokens and vectors, and the last steps to a caller's vectors: dimensions, length, a check of every row."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import InferenceError
from akidb_mlx.quantized import OutputVectors

# (rows, dimension) float32.
Vectors = NDArray[np.float32]
# The output of a model for several texts: (rows, dimension) float32, or an array for each where they have other shapes.
Rows = Vectors | list[NDArray[Any]]
# A row of a sparse matrix: the indices and the values of its entries that are not zero.
SPARSE = np.dtype([("index", np.int32), ("value", np.float32)])
# (tokens,) int32.
TokenIds = NDArray[np.int32]
# (rows, tokens) int32.
TokenMatrix = NDArray[np.int32]

# How far from 1 the length of a normalised float32 vector may be.
_UNIT_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingBatch:
    """The result of one call. Batches compare and hash by identity.

    Attributes:
        vectors: (texts, dimension) float32, C-contiguous, in the order of the texts; or of another type that the call
            asked for, and then (texts, dimension / 8, rounded up) for packed bits.
        token_counts: tokens that the model read of each text, its prompt and special tokens included.
        truncated: for each text, whether tokens were cut off.
        model: name of the model.
        dimension: size of a vector, before its bits are packed.
    """

    vectors: OutputVectors
    token_counts: list[int]
    truncated: list[bool]
    model: str
    dimension: int

    def __repr__(self) -> str:
        count = len(self.token_counts)
        return (
            f"<EmbeddingBatch of {count} text{'' if count == 1 else 's'} by {reprlib.repr(self.model)}: dimension "
            f"{self.dimension}, {sum(self.token_counts)} tokens, {sum(self.truncated)} truncated>"
        )


def finish_vectors(
    pooled: Vectors, windows: Sequence[Sequence[int]], dimensions: int, normalize: bool, first: int = 0
) -> Vectors:
    """Cut to `dimensions`, normalise, and combine the windows of each chunked text.

    The windows of a text are each cut and normalised, averaged with their token counts as weights, and the average is
    normalised again. With `normalize=False` nothing is, and windows are averaged as they are.

    Args:
        pooled: (windows of all texts, native dimension), as the model computed them.
        windows: for each text in order, the token counts of its windows.
        dimensions: how many of the first values to keep.
        normalize: whether each vector is divided by its Euclidean length.
        first: the index, in the caller's list, of the first of the texts.

    Returns:
        (texts, dimensions) float32, C-contiguous.

    Raises:
        InferenceError: a row is not finite, or has no direction to normalise; the text's index is named.
    """
    vectors = np.ascontiguousarray(pooled[:, :dimensions])
    owners = np.repeat(
        np.arange(first, first + len(windows)), np.array([len(counts) for counts in windows], dtype=np.intp)
    )
    vectors = _normalized(vectors, owners, normalize)
    if len(owners) == len(windows):
        return vectors
    weights = np.array([count for counts in windows for count in counts], dtype=np.float32)[:, None]
    starts = np.flatnonzero(np.diff(owners, prepend=first - 1))
    averages = np.add.reduceat(vectors * weights, starts) / np.add.reduceat(weights, starts)
    return _normalized(averages.astype(np.float32), np.arange(first, first + len(windows)), normalize)


def _normalized(vectors: Vectors, owners: NDArray[np.intp], normalize: bool) -> Vectors:
    """Return the rows, normalised if asked for; `owners` holds the text of each row."""
    sound: NDArray[np.bool_]
    with np.errstate(all="ignore"):
        if normalize:
            vectors = vectors / _lengths(vectors)[:, None]
            sound = np.abs(_lengths(vectors) - 1) < _UNIT_TOLERANCE  # so that all are finite
        else:
            sound = np.asarray(np.isfinite(vectors).all(axis=1), bool)
    if not sound.all():
        index = int(owners[np.argmin(sound)])
        raise InferenceError(
            f"the model's vector for text {index} is not finite or has no length; the weights may be damaged, "
            "or the precision too narrow for this text (try precision float32)",
            index,
        )
    return vectors


def _lengths(vectors: Vectors) -> Vectors:
    """Return the Euclidean length of each row; faster than `np.linalg.norm`, which first squares all values."""
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return lengths
