"""The vectors of the database as one matrix in memory, which follows the changes of all processes."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedded_db.embeddings import STORED, model_key
from embedded_db.sqlite.connection import Transaction

Keys = NDArray[np.int64]
Scores = NDArray[np.float32]
_Scalar = TypeVar("_Scalar", np.int64, np.float32)
# Vectors that are read at once.
_AT_ONCE = 512
# Scores of one product are this near to the exact ones.
_ROUNDING = 1e-5
# A cosine of float32 vectors may miss a threshold that it reaches exactly.
TOLERANCE = 1e-6


class VectorMatrix:
    """Unit vectors by the keys of their nodes; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: int | None = None
        self._change = 0
        self._count = 0
        self._keys: Keys = np.empty(0, np.int64)
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        # The row of each key, which are dense; -1 where it has none.
        self._row_of: Keys = np.empty(0, np.int64)

    def similarities(self, tx: Transaction, query: NDArray[np.float32], candidates: Keys | None) -> tuple[Keys, Scores]:
        """Return the candidates that have a vector, and their cosines with the query, to five decimals.

        Args:
            tx: what it sees is what the matrix holds, or more.
            query: a vector of the model's dimension.
            candidates: keys of nodes; None takes all.
        """
        with self._lock:
            self._follow(tx)
            if not self._count or self._rows.shape[1] != query.size:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            unit = _unit(query[np.newaxis])[0].astype(np.float32)
            if candidates is None:
                return self._keys[: self._count].copy(), self._rows[: self._count] @ unit
            known = candidates[candidates < self._row_of.size]
            rows = self._row_of[known]
            keys, rows = known[rows >= 0], rows[rows >= 0]
            # Products with all rows are cheaper than a copy of half of them.
            if rows.size * 4 > self._count:
                return keys, (self._rows[: self._count] @ unit)[rows]
            return keys, self._rows[rows] @ unit

    def similarities_of(self, tx: Transaction, queries: NDArray[np.float32]) -> tuple[Keys, Scores]:
        """Return all keys, and their cosines with each query as one column each, to five decimals."""
        units = _unit(queries).astype(np.float32)
        with self._lock:
            self._follow(tx)
            if not self._count or self._rows.shape[1] != units.shape[1]:
                return np.empty(0, np.int64), np.empty((0, len(units)), np.float32)
            return self._keys[: self._count].copy(), self._rows[: self._count] @ units.T

    def exact(self, tx: Transaction, query: NDArray[np.float32], keys: Keys) -> NDArray[np.float64]:
        """Return cosines that depend on nothing but the two vectors, so equal vectors tie; NaN where one is gone."""
        unit = _unit(query[np.newaxis])[0]
        with self._lock:
            self._follow(tx)  # since another thread may have taken another model's vectors
            if self._rows.shape[1] != unit.size or not self._count:
                return np.full(keys.size, np.nan)
            rows = self._row_of[np.minimum(keys, self._row_of.size - 1)]
            rows[keys >= self._row_of.size] = -1
            vectors = self._rows[rows].astype(np.float64)
        scores = (vectors * unit).sum(axis=1)
        scores[rows < 0] = np.nan
        clipped: NDArray[np.float64] = np.clip(scores, -1.0, 1.0)
        return clipped

    def _follow(self, tx: Transaction) -> None:
        """Take over what has changed since the last call, and all vectors where another model's answer now."""
        model = model_key(tx)
        if model is None:
            return
        if model != self._model:
            self._load(tx, model)
        while changed := tx.rows(
            "SELECT c.change, c.node_key, e.vector FROM embedding_change c"
            " LEFT JOIN embedding e ON e.node_key = c.node_key AND e.model_key = :model"
            " WHERE c.change > :change ORDER BY c.change LIMIT :most",
            change=self._change,
            model=model,
            most=_AT_ONCE,
        ):
            for _, key, vector in changed:
                if vector is None:
                    self._remove(key)
            self._put([(key, vector) for _, key, vector in changed if vector is not None])
            self._change = changed[-1][0]

    def _load(self, tx: Transaction, model: int) -> None:
        """Take all vectors of a model, a part at a time, into a matrix that is made once in its size."""
        count, highest, dimension = tx.rows(
            "SELECT count(*), coalesce(max(e.node_key), -1), m.dimension FROM model m"
            " LEFT JOIN embedding e ON e.model_key = m.key WHERE m.key = :model GROUP BY m.key, m.dimension",
            model=model,
        )[0]
        self._count = 0
        self._keys, self._rows = np.empty(count, np.int64), np.empty((count, dimension), np.float32)
        self._row_of = np.full(highest + 1, -1, np.int64)
        self._change = tx.value("SELECT coalesce(max(change), 0) FROM embedding_change")
        last = -1
        while stored := tx.rows(
            "SELECT node_key, vector FROM embedding WHERE model_key = :model AND node_key > :last"
            " ORDER BY node_key LIMIT :most",
            model=model,
            last=last,
            most=_AT_ONCE,
        ):
            self._put(stored)
            last = stored[-1][0]
        self._model = model

    def _remove(self, key: int) -> None:
        if key >= self._row_of.size or self._row_of[key] < 0:
            return
        row, last = int(self._row_of[key]), self._count - 1
        self._rows[row], self._keys[row] = self._rows[last], self._keys[last]
        self._row_of[self._keys[row]] = row
        self._row_of[key] = -1
        self._count = last

    def _put(self, stored: list[tuple[Any, ...]]) -> None:
        """Set the vectors of keys, each of which occurs once."""
        if not stored:
            return
        keys = np.array([key for key, _ in stored], np.int64)
        wide = np.frombuffer(b"".join(vector for _, vector in stored), STORED).reshape(len(stored), -1)
        vectors = _unit(wide).astype(np.float32)
        if vectors.shape[1] != self._rows.shape[1]:  # the first, or those of another model after all others were gone
            self._count, self._row_of[:] = 0, -1
            self._rows = np.empty((self._keys.size, vectors.shape[1]), np.float32)
        highest = int(keys.max())
        if highest >= self._row_of.size:
            self._row_of = _grown(self._row_of, highest + 1, -1)
        new = keys[self._row_of[keys] < 0]
        needed = self._count + new.size
        if needed > self._keys.size:
            self._keys, self._rows = _grown(self._keys, needed, 0), _grown(self._rows, needed, 0)
        self._row_of[new] = np.arange(self._count, needed)
        self._keys[self._count : needed] = new
        self._count = needed
        self._rows[self._row_of[keys]] = vectors


def top(
    tx: Transaction,
    matrix: VectorMatrix,
    query: NDArray[np.float32],
    keys: Keys,
    scores: Scores,
    most: int,
    threshold: float | None,
) -> dict[int, float]:
    """Return the exact cosines of the best candidates, and of all that tie with the last, by their keys."""
    if threshold is not None:
        reaching = scores >= threshold - TOLERANCE - _ROUNDING
        keys, scores = keys[reaching], scores[reaching]
    if keys.size > most:
        last = np.partition(scores, keys.size - most)[keys.size - most]
        keys = keys[scores >= last - 2 * _ROUNDING]
    exact = matrix.exact(tx, query, keys)
    least = -2.0 if threshold is None else threshold - TOLERANCE
    return {int(key): float(score) for key, score in zip(keys, exact, strict=True) if score >= least}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return vectors of length 1; in float64, since squares of the largest and smallest float32 are none."""
    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _grown(array: NDArray[_Scalar], needed: int, value: int) -> NDArray[_Scalar]:
    """Return a larger copy of an array, with some room to spare."""
    grown = np.full((max(needed, len(array) * 3 // 2), *array.shape[1:]), value, array.dtype)
    grown[: len(array)] = array
    return grown
