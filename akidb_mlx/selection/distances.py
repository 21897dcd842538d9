"""Distances and lengths in float64, with sums in the order that the crate has too."""

from __future__ import annotations

import numpy as np

from akidb_mlx.errors import InferenceError
from akidb_mlx.selection.json_fields import Floats

_SHORTEST, _LONGEST = 1e-140, 1e140


def squared_distances(query: Floats, rows: Floats) -> Floats:
    """Return the squared Euclidean distance of a query from each row.

    The squares are added from left to right: NumPy's own sum has another order, and with it another last bit.
    """
    with np.errstate(over="ignore"):
        differences = query - rows
        differences *= differences
        return np.asarray(np.cumsum(differences, axis=1)[:, -1], np.float64)


def normalize(queries: Floats) -> Floats:
    """Return the queries divided by their lengths; one of zeros stays as it is."""
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries))
        extreme = ~((lengths > _SHORTEST) & (lengths < _LONGEST))
        if extreme.any():  # the squares of such values overflow, or lose digits
            largest = np.abs(queries[extreme]).max(axis=1, initial=0)
            queries = queries.copy()
            queries[extreme] /= np.where(largest > 0, largest, 1)[:, None]
            lengths[extreme] = np.sqrt(np.einsum("qd,qd->q", queries[extreme], queries[extreme]))
        return np.asarray(queries / np.where(lengths > 0, lengths, 1)[:, None], np.float64)


def not_finite(label: str, index: int) -> InferenceError:
    """Return the error of a score that is too large for float64.

    Args:
        label: whose score it is.
        index: the query's place in the call.
    """
    return InferenceError(
        f"the score of {label} is not finite: the selector's values or the vector's are too large", index
    )
