"""The vectors of the database as one matrix in memory, which follows the changes of all processes."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedded_db.embeddings import STORED, model_key
from embedded_db.engine import ALL, ROUNDING, TOLERANCE, Keys, Scores, Transaction, cosines, reaching, unit_rows

_Scalar = TypeVar("_Scalar", np.int64, np.float32)


class VectorMatrix:
    """Unit vectors by the keys of their nodes; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._change = 0
        self._count = 0
        self._keys: Keys = np.empty(0, np.int64)
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        # The row of each key, which are dense; -1 where it has none.
        self._row_of: Keys = np.empty(0, np.int64)

    def best(
        self,
        tx: Transaction,
        where: str,
        values: dict[str, Any],
        query: NDArray[np.float32],
        most: int,
        threshold: float | None,
    ) -> dict[int, float]:
        """Return the exact cosines of the best nodes, and of all that tie with the last, by their keys."""
        keys, scores = self.similarities(tx, where, values, query)
        if threshold is not None:
            near = scores >= threshold - TOLERANCE - ROUNDING
            keys, scores = keys[near], scores[near]
        if keys.size > most:
            last = np.partition(scores, keys.size - most)[keys.size - most]
            keys = keys[scores >= last - 2 * ROUNDING]
        return reaching(keys, self.exact(tx, keys, query), threshold)

    def similarities(
        self, tx: Transaction, where: str, values: dict[str, Any], query: NDArray[np.float32]
    ) -> tuple[Keys, Scores]:
        """Return the nodes that meet a condition and have a vector, and their cosines with the query.

        What the transaction sees is what the matrix then holds, or less.
        """
        candidates = None
        if where != ALL:
            rows = tx.rows(f"SELECT n.key FROM node n WHERE {where}", **values)
            candidates = np.fromiter((key for (key,) in rows), np.int64, len(rows))
        with self._lock:
            self._follow(tx)
            if not self._count or self._rows.shape[1] != query.size:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            unit = unit_rows(query[np.newaxis])[0].astype(np.float32)
            if candidates is None:
                return self._keys[: self._count].copy(), self._rows[: self._count] @ unit
            known = candidates[candidates < self._row_of.size]
            rows_of = self._row_of[known]
            keys, rows_of = known[rows_of >= 0], rows_of[rows_of >= 0]
            # Products with all rows are cheaper than a copy of half of them.
            if rows_of.size * 4 > self._count:
                return keys, (self._rows[: self._count] @ unit)[rows_of]
            return keys, self._rows[rows_of] @ unit

    def exact(self, _: Transaction, keys: Keys, query: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return cosines that depend on nothing but the two vectors, so equal vectors tie; NaN where one is gone."""
        with self._lock:
            if self._rows.shape[1] != query.size:
                return np.full(keys.size, np.nan)
            rows = self._row_of[keys]
            vectors = self._rows[rows]
        scores = cosines(vectors, query)
        scores[rows < 0] = np.nan
        return scores

    def _follow(self, tx: Transaction) -> None:
        """Take over what has changed since the last call."""
        changed = tx.rows(
            "SELECT c.change, c.node_key, e.vector FROM embedding_change c"
            " LEFT JOIN embedding e ON e.node_key = c.node_key AND e.model_key = :model"
            " WHERE c.change > :change ORDER BY c.change",
            change=self._change,
            model=model_key(tx),
        )
        if not changed:
            return
        for _, key, vector in changed:
            if vector is None:
                self._remove(key)
        stored = [(key, vector) for _, key, vector in changed if vector is not None]
        if stored:
            vectors = np.frombuffer(b"".join(vector for _, vector in stored), STORED).reshape(len(stored), -1)
            self._put(np.array([key for key, _ in stored], np.int64), unit_rows(vectors).astype(np.float32))
        self._change = changed[-1][0]

    def _remove(self, key: int) -> None:
        if key >= self._row_of.size or self._row_of[key] < 0:
            return
        row, last = int(self._row_of[key]), self._count - 1
        self._rows[row], self._keys[row] = self._rows[last], self._keys[last]
        self._row_of[self._keys[row]] = row
        self._row_of[key] = -1
        self._count = last

    def _put(self, keys: Keys, vectors: NDArray[np.float32]) -> None:
        """Set the vectors of keys, each of which occurs once."""
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


def _grown(array: NDArray[_Scalar], needed: int, value: int) -> NDArray[_Scalar]:
    """Return a larger copy of an array, with some room to spare."""
    grown = np.full((max(needed, len(array) * 3 // 2), *array.shape[1:]), value, array.dtype)
    grown[: len(array)] = array
    return grown
