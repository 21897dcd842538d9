"""Vectors of smaller types, as sentence-transformers 6.2 defines them, and search with them.

Int8 and uint8 store which of 256 equal steps between a lower and an upper bound each value lies in. The bounds of each
dimension are its *range*; they come from a sample of vectors, and must be the same for all vectors that are compared.
Binary and ubinary store one bit for each value, 1 where it is above 0, eight to a byte.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import OUTPUT_DTYPES, OutputDtype

# (texts, dimension) of float32, float16, int8 or uint8; (texts, dimension / 8, rounded up) for binary and ubinary.
OutputVectors = NDArray[Any]
# (2, dimension) float32: the lower bounds and the upper ones.
Ranges = NDArray[np.float32]

_STEPS = 255
# The distance between int8 and uint8, also of packed bits.
_OFFSET = 128
# The number of bits that are set in each byte.
_BIT_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def quantize(vectors: Any, dtype: OutputDtype, ranges: Any = None) -> OutputVectors:
    """Return vectors in a smaller type.

    Args:
        vectors: (texts, dimension) or (dimension,), of float32 or float16.
        dtype: "float32", "float16", "int8", "uint8", "binary" or "ubinary".
        ranges: (2, dimension), for int8 and uint8 only; see `calibration_ranges`.

    Returns:
        An array of the same shape; for "binary" (int8) and "ubinary" (uint8) the last axis has an eighth of its size,
        rounded up.

    Raises:
        InvalidInputError: an argument is not usable, or the ranges are missing.
    """
    values = _floats("vectors", vectors)
    if dtype not in OUTPUT_DTYPES:
        raise InvalidInputError(f"dtype must be one of {', '.join(OUTPUT_DTYPES)}, found {reprlib.repr(dtype)}")
    bounds = check_ranges(dtype, ranges, values.shape[-1])
    if dtype in ("binary", "ubinary"):
        bits = np.packbits(values > 0, axis=-1)
        return bits if dtype == "ubinary" else _signed(bits)
    if bounds is None:
        return _half(values) if dtype == "float16" else values
    steps = np.clip(np.floor((values - bounds[0]) / _step(bounds)), 0, _STEPS).astype(np.uint8)
    return steps if dtype == "uint8" else _signed(steps)


def calibration_ranges(vectors: Any) -> Ranges:
    """Return the smallest and the largest value of each dimension, for int8 and uint8.

    Args:
        vectors: (sample, dimension), of the kind that is to be stored; at least two, and better a thousand or more.

    Returns:
        (2, dimension) float32.

    Raises:
        InvalidInputError: they are no such array, or too few.
    """
    values = _floats("vectors", vectors)
    if values.ndim != 2 or len(values) < 2:
        raise InvalidInputError(f"ranges need at least two vectors (sample, dimension), found shape {values.shape}")
    return np.stack([values.min(axis=0), values.max(axis=0)]).astype(np.float32)


def check_ranges(dtype: OutputDtype, ranges: Any, dimension: int) -> Ranges | None:
    """Return the ranges for a type, or None for a type that takes none.

    Raises:
        InvalidInputError: the type needs ranges and there are none, or takes none; or they are not usable.
    """
    if dtype not in ("int8", "uint8"):
        if ranges is not None:
            raise InvalidInputError(f"ranges are for int8 and uint8, and the type is {dtype}")
        return None
    if ranges is None:
        raise InvalidInputError(
            f"{dtype} needs ranges: embed a sample of your own texts as float32, give its vectors to "
            "akidb_mlx.calibration_ranges, keep the result, and pass it as ranges with every call. Ranges taken from "
            "the texts of a call would make a vector depend on the texts beside it"
        )
    bounds = _floats("ranges", ranges)
    if bounds.shape != (2, dimension):
        raise InvalidInputError(f"ranges must have the shape (2, {dimension}), found {bounds.shape}")
    if not np.isfinite(bounds).all() or (bounds[0] > bounds[1]).any():
        raise InvalidInputError("ranges must be finite lower bounds and, in the second row, upper ones not below them")
    return bounds


def dequantize(vectors: Any, ranges: Any) -> NDArray[np.float32]:
    """Return the lower end of the step that each int8 or uint8 value stands for, as float32.

    Raises:
        InvalidInputError: an argument is not usable.
    """
    values = np.asarray(vectors)
    if values.dtype not in (np.int8, np.uint8):
        raise InvalidInputError(f"vectors must be floating-point numbers, int8 or uint8, found {values.dtype}")
    bounds = check_ranges("uint8", ranges, values.shape[-1])
    assert bounds is not None
    steps = values.astype(np.float32) + (_OFFSET if values.dtype == np.int8 else 0)
    restored: NDArray[np.float32] = steps * _step(bounds) + bounds[0]
    return restored


def hamming_distances(queries: Any, documents: Any) -> NDArray[np.uint32]:
    """Return how many bits differ between each query and each document, (queries, documents).

    Args:
        queries: (queries, bytes), binary or ubinary.
        documents: (documents, bytes), of the same type.

    Raises:
        InvalidInputError: they are no such arrays.
    """
    one, other = _bits("queries", queries), _bits("documents", documents)
    if one.dtype != other.dtype or one.shape[1] != other.shape[1]:
        raise InvalidInputError(
            "queries and documents must be of one type and size, found "
            f"{one.dtype} {one.shape} and {other.dtype} {other.shape}"
        )
    distances = np.empty((len(one), len(other)), np.uint32)
    # The offset of binary does not matter to the bits that differ.
    documents = other.view(np.uint8)
    for row, query in enumerate(one.view(np.uint8)):
        distances[row] = _BIT_COUNTS[documents ^ query].sum(axis=1, dtype=np.uint32)
    return distances


def rescore(queries: Any, documents: Any, candidates: Any, ranges: Any = None) -> NDArray[np.float32]:
    """Score the candidates of a search with packed bits again, by dot products with whole queries.

    Packed bits count as 0 and 1, and int8 or uint8 as the values that they stand for.

    Args:
        queries: (queries, dimension), of any type but packed bits.
        documents: (documents, …), of any type; bytes whose number is an eighth of the queries' dimension are packed
            bits.
        candidates: (queries, k) integers, for each query the rows of `documents` that the first search found.
        ranges: those that int8 or uint8 vectors were made with.

    Returns:
        (queries, k) float32, a score for each candidate; higher is nearer.

    Raises:
        InvalidInputError: an argument is not usable.
    """
    floats = _floats("queries", queries if _is_float(queries) else dequantize(queries, ranges))
    stored, rows = np.asarray(documents), np.asarray(candidates)
    if floats.ndim != 2 or stored.ndim != 2 or rows.ndim != 2 or len(rows) != len(floats):
        raise InvalidInputError(
            "queries, documents and candidates must be two-dimensional, with a row of candidates for each query; found "
            f"shapes {floats.shape}, {stored.shape} and {rows.shape}"
        )
    if rows.dtype.kind not in "iu" or (rows.size and (rows.min() < 0 or rows.max() >= len(stored))):
        raise InvalidInputError(f"candidates must be integers from 0 to {len(stored) - 1}, the rows of documents")
    dimension = floats.shape[1]
    chosen = stored[rows]
    if _is_float(stored):
        values = chosen.astype(np.float32, copy=False)
    elif stored.shape[1] == -(-dimension // 8) < dimension:
        bits = chosen.view(np.uint8) ^ np.uint8(_OFFSET if stored.dtype == np.int8 else 0)
        values = np.unpackbits(bits, axis=-1)[..., :dimension].astype(np.float32)
    else:
        values = dequantize(chosen, ranges)
    if values.shape[-1] != dimension:
        raise InvalidInputError(f"queries have {dimension} values and documents {values.shape[-1]}")
    scores: NDArray[np.float32] = np.einsum("qd,qkd->qk", floats, values)
    return scores


def _step(bounds: Ranges) -> NDArray[np.float32]:
    """Return the size of a step in each dimension; 1 where all values are equal."""
    steps: NDArray[np.float32] = (bounds[1] - bounds[0]) / np.float32(_STEPS)
    steps[steps == 0] = 1
    return steps


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidInputError(
            "a value is not finite in float16, whose largest is 65504; normalise the vectors, or choose float32"
        )
    return half


def _is_float(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "f"


def _signed(values: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return unsigned bytes less 128."""
    signed: NDArray[np.int8] = (values ^ np.uint8(_OFFSET)).view(np.int8)
    return signed


def _bits(name: str, value: Any) -> NDArray[Any]:
    """Return an array that is checked to be packed bits."""
    packed = np.asarray(value)
    if packed.dtype not in (np.int8, np.uint8) or packed.ndim != 2:
        raise InvalidInputError(
            f"{name} must be binary (int8) or ubinary (uint8) vectors (rows, bytes), found {packed.dtype} of shape "
            f"{packed.shape}"
        )
    return np.ascontiguousarray(packed)


def _floats(name: str, value: Any) -> NDArray[np.float32]:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of several lengths
        raise InvalidInputError(f"{name} must be an array of numbers: {error}") from error
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        raise InvalidInputError(
            f"{name} must be floating-point numbers in one or two dimensions, found {array.dtype} of shape "
            f"{array.shape}"
        )
    return array.astype(np.float32, copy=False)
