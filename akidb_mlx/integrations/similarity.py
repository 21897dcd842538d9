"""The similarities of sentence-transformers between vectors; higher is nearer."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SimilarityName = Literal["cosine", "dot", "euclidean", "manhattan"]
Scores = NDArray[np.float32]
# The constant of torch.nn.functional.normalize.
_SMALLEST_LENGTH = 1e-12


def similarity(name: SimilarityName, first: Any, second: Any) -> Scores:
    """Return the similarity of each vector of `first` to each of `second`, (first, second); both may be one vector."""
    one, other = np.atleast_2d(np.asarray(first, np.float32)), np.atleast_2d(np.asarray(second, np.float32))
    if name in ("euclidean", "manhattan"):
        scores = np.empty((len(one), len(other)), np.float32)
        for row, vector in enumerate(one):  # all differences at once would take a vector's size more memory
            scores[row] = pairwise_similarity(name, vector, other)
        return scores
    if name == "cosine":
        one, other = _unit(one), _unit(other)
    products: Scores = one @ other.T
    return products


def pairwise_similarity(name: SimilarityName, first: Any, second: Any) -> Scores:
    """Return the similarity of each vector of `first` to the one of `second` in the same place."""
    one, other = np.asarray(first, np.float32), np.asarray(second, np.float32)
    scores: Scores
    if name == "manhattan":
        scores = -np.abs(one - other).sum(axis=-1)
    elif name == "euclidean":
        scores = -np.linalg.norm(one - other, axis=-1)
    elif name == "dot":
        scores = (one * other).sum(axis=-1)
    else:
        scores = (_unit(one) * _unit(other)).sum(axis=-1)
    return scores


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SMALLEST_LENGTH)
    return unit
