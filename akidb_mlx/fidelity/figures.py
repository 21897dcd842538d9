"""Figures of how close vectors are to others of the same texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.vectors import Vectors

Numbers = NDArray[np.float64]

# How many neighbours are compared.
NEIGHBOURS = 10
# Rows of the matrix of similarities that are in memory at a time.
_BLOCK = 512


def cosines(first: Vectors, second: Vectors) -> Numbers:
    """Return the cosine of each row with the row of the same index, in double precision."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: Numbers = np.clip(np.einsum("ij,ij->i", one, other) / lengths, -1, 1)
    return result


def cut(vectors: Vectors, dimension: int) -> Vectors:
    """Return the first values of each row, of unit length again (Matryoshka)."""
    shorter = vectors[:, :dimension]
    result: Vectors = (shorter / np.linalg.norm(shorter, axis=1, keepdims=True)).astype(np.float32)
    return result


def neighbours(queries: Vectors, index: Vectors, count: int) -> NDArray[np.intp]:
    """Return the rows of `index` that are nearest to each query, without the row of the query's own text.

    Args:
        queries: one vector for each text.
        index: likewise, by the same or another model.
        count: how many, fewer than there are texts.

    Returns:
        (texts, count), in no order.
    """
    found = []
    for start in range(0, len(queries), _BLOCK):
        similarities = queries[start : start + _BLOCK] @ index.T
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = -np.inf
        found.append(np.argpartition(-similarities, count - 1, axis=1)[:, :count])
    return np.concatenate(found)


def recall(found: NDArray[np.intp], expected: NDArray[np.intp]) -> float:
    """Return the mean share of the expected neighbours that were found."""
    shares = [np.isin(one, other).mean() for one, other in zip(expected, found, strict=True)]
    return float(np.mean(shares))


def neighbour_recall(vectors: Vectors, original: Vectors, *, queries_only: bool = False) -> float:
    """Return the share of the original's nearest neighbours of each text that are found with other vectors.

    Args:
        vectors: those of another model.
        original: the original's.
        queries_only: whether the other model computes the queries alone, and the original's vectors are searched.

    Returns:
        The mean over the texts, of which there must be two or more.
    """
    count = min(NEIGHBOURS, len(original) - 1)
    index = original if queries_only else vectors
    return recall(neighbours(vectors, index, count), neighbours(original, original, count))


def spearman(first: Numbers, second: Numbers) -> float:
    """Return Spearman's rank correlation; equal values have the mean of their ranks."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    deviations = [rank - rank.mean() for rank in ranks]
    scale = np.sqrt(np.square(deviations[0]).sum() * np.square(deviations[1]).sum())
    return float(deviations[0] @ deviations[1] / scale) if scale else 0.0


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Numbers = (ends - (counts - 1) / 2)[places]
    return ranks
