"""The vectors that a selector is asked about, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.selection.json_fields import Floats


def check_vector(vector: ArrayLike, dimension: int | None) -> Floats:
    """Return a vector as float64.

    Args:
        vector: numbers.
        dimension: how many there must be; None for any.

    Raises:
        InvalidInputError: there are more or fewer, or they are not finite numbers.
    """
    found = _numbers("the vector", vector)
    if found.ndim != 1:
        raise InvalidInputError(f"the vector must have one dimension, found {found.ndim}; select_batch takes several")
    _check_row("the vector", found, dimension, None)
    return found


def check_vectors(vectors: ArrayLike, dimension: int | None) -> Floats:
    """Return several vectors as float64, (vectors, dimension); of any dimension without their values.

    Args:
        vectors: a list of vectors, or a matrix.
        dimension: how many numbers each must have; None for any, as an SVM without classifiers, which reads none.

    Raises:
        InvalidInputError: one has more or fewer, or holds something else than finite numbers; `index` holds which.
    """
    if isinstance(vectors, np.ndarray):
        if vectors.ndim != 2:
            raise InvalidInputError(f"vectors must have two dimensions, found {vectors.ndim}")
        rows = list(_numbers("vectors", vectors))
    elif isinstance(vectors, (str, bytes)) or not isinstance(vectors, Iterable):
        raise InvalidInputError(f"vectors must be a list of vectors, found {type(vectors).__name__}")
    else:
        rows = [_numbers(f"vector {index}", row, index) for index, row in enumerate(vectors)]
    for index, row in enumerate(rows):
        if row.ndim != 1:
            raise InvalidInputError(f"vector {index} must have one dimension, found {row.ndim}", index)
        _check_row(f"vector {index}", row, dimension, index)
    return np.array(rows) if dimension and rows else np.empty((len(rows), dimension or 0))


def _check_row(name: str, row: Floats, dimension: int | None, index: int | None) -> None:
    if dimension is not None and len(row) != dimension:
        raise InvalidInputError(f"{name} has {len(row)} values, and the selector takes {dimension}", index)
    if not len(row):
        raise InvalidInputError(f"{name} is empty", index)
    if not np.isfinite(row).all():
        place = int(np.argmin(np.isfinite(row)))
        raise InvalidInputError(f"{name} is not finite: its value {place} is {row[place]}", index)


def _numbers(name: str, values: ArrayLike, index: int | None = None) -> Floats:
    try:
        found = np.asarray(values)
        if not found.size:  # NumPy gives an empty list no type of numbers
            return np.empty(found.shape)
        if found.dtype.kind not in "fiu":
            raise TypeError(f"found {found.dtype.name} values")
        return np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{name} must hold numbers: {error}", index) from error
