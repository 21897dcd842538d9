"""The vectors of the database as one matrix in memory, which follows the changes of all processes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedded_db import changes
from embedded_db.changes import MARK
from embedded_db.embeddings import STORED, model_key, vector_of
from embedded_db.engine import ALL, ROUNDING, TOLERANCE, Keys, Scores, Transaction, cosines, reaching, unit_rows

_Scalar = TypeVar("_Scalar", np.int64, np.float32)
# Vectors that are read at once.
_AT_ONCE = 512
# Queries whose products with all vectors are made at once.
_TOGETHER = 16


class VectorMatrix:
    """Unit vectors by the keys of their nodes; safe to use from many threads."""

    def __init__(self) -> None:
        # Held by a caller for the whole of its ranking, so that all of it sees one state.
        self._lock = threading.RLock()
        self._model: int | None = None
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
        with self._lock:
            return self._top(tx, query, *self.similarities(tx, where, values, query), most, threshold)

    def best_of_each(
        self,
        tx: Transaction,
        where: str,
        values: dict[str, Any],
        queries: Sequence[tuple[int, NDArray[np.float32]]],
        most: int,
        threshold: float | None,
    ) -> list[dict[int, float]]:
        """Return what `best` would for the vectors of several nodes, each without the node itself."""
        candidates = _candidates(tx, where, values)
        found: list[dict[int, float]] = []
        for start in range(0, len(queries), _TOGETHER):
            part = queries[start : start + _TOGETHER]
            with self._lock:
                keys, scores = self._similarities_of(tx, np.stack([vector for _, vector in part]))
                if candidates is not None:
                    kept = np.isin(keys, candidates)
                    keys, scores = keys[kept], scores[kept]
                for (own, vector), column in zip(part, scores.T, strict=True):
                    others = keys != own
                    found.append(self._top(tx, vector, keys[others], column[others], most, threshold))
        return found

    def similarities(
        self, tx: Transaction, where: str, values: dict[str, Any], query: NDArray[np.float32]
    ) -> tuple[Keys, Scores]:
        """Return the nodes that meet a condition and have a vector, and their cosines with the query.

        What the transaction sees is what the matrix then holds, or less.
        """
        candidates = _candidates(tx, where, values)
        with self._lock:
            self._follow(tx)
            if not self._count or self._rows.shape[1] != query.size:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            unit = unit_rows(query[np.newaxis])[0].astype(np.float32)
            if candidates is None:
                return _visible(tx, self._keys[: self._count], _products(self._rows[: self._count], unit))
            known = candidates[candidates < self._row_of.size]
            rows_of = self._row_of[known]
            keys, rows_of = known[rows_of >= 0], rows_of[rows_of >= 0]
            # Products with all rows are cheaper than a copy of half of them.
            if rows_of.size * 4 > self._count:
                return keys, _products(self._rows[: self._count], unit)[rows_of]
            return keys, _products(self._rows[rows_of], unit)

    def _similarities_of(self, tx: Transaction, queries: NDArray[np.float32]) -> tuple[Keys, Scores]:
        """Return all keys, and their cosines with each query as one column each, to five decimals."""
        units = unit_rows(queries).astype(np.float32)
        with self._lock:
            self._follow(tx)
            if not self._count or self._rows.shape[1] != units.shape[1]:
                return np.empty(0, np.int64), np.empty((0, len(units)), np.float32)
            return _visible(tx, self._keys[: self._count], self._rows[: self._count] @ units.T)

    def exact(self, tx: Transaction, query: NDArray[np.float32], keys: Keys) -> NDArray[np.float64]:
        """Return cosines that depend on nothing but the two vectors, so equal vectors tie; NaN where one is gone."""
        with self._lock:
            self._follow(tx)  # since another thread may have taken another model's vectors
            if self._rows.shape[1] != query.size or not self._count:
                return np.full(keys.size, np.nan)
            rows = self._row_of[np.minimum(keys, self._row_of.size - 1)]
            rows[keys >= self._row_of.size] = -1
            vectors = self._rows[rows]
        scores = cosines(vectors, query)
        scores[rows < 0] = np.nan
        # Those that another thread has seen removed are still there for this transaction.
        gone = np.flatnonzero(rows < 0)
        model = model_key(tx) if gone.size else None
        for index in gone:
            vector = vector_of(tx, model, int(keys[index]))
            if vector is not None:
                unit = unit_rows(vector[np.newaxis]).astype(np.float32)
                scores[index] = cosines(unit, query)[0]
        return scores

    def _top(
        self,
        tx: Transaction,
        query: NDArray[np.float32],
        keys: Keys,
        scores: Scores,
        most: int,
        threshold: float | None,
    ) -> dict[int, float]:
        if threshold is not None:
            near = scores >= threshold - TOLERANCE - ROUNDING
            keys, scores = keys[near], scores[near]
        if keys.size > most:
            last = np.partition(scores, keys.size - most)[keys.size - most]
            keys = keys[scores >= last - 2 * ROUNDING]
        return reaching(keys, self.exact(tx, query, keys), threshold)

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
            if any(key == MARK for _, key, _ in changed):
                self._load(tx, model)
                continue
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
        self._change = changes.last(tx)
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
        vectors = unit_rows(wide).astype(np.float32)
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


def _products(rows: NDArray[np.float32], unit: NDArray[np.float32]) -> Scores:
    """Return the products of rows with a vector, on this thread.

    Memory bounds `@` as well, and its threads go on to spin while the model of the next query computes.
    """
    products: Scores = np.einsum("ij,j->i", rows, unit)
    return products


def _candidates(tx: Transaction, where: str, values: dict[str, Any]) -> Keys | None:
    """Return the keys of the nodes that meet a condition; None for all."""
    if where == ALL:
        return None
    rows = tx.rows(f"SELECT n.key FROM node n WHERE {where}", **values)
    return np.fromiter((key for (key,) in rows), np.int64, len(rows))


def _visible(tx: Transaction, keys: Keys, scores: Scores) -> tuple[Keys, Scores]:
    """Return copies without nodes that are newer than the transaction: they would take the places of others."""
    kept = keys <= (tx.value("SELECT max(key) FROM node") or -1)
    return (keys.copy(), scores) if kept.all() else (keys[kept], scores[kept])


def _grown(array: NDArray[_Scalar], needed: int, value: int) -> NDArray[_Scalar]:
    """Return a larger copy of an array, with some room to spare."""
    grown = np.full((max(needed, len(array) * 3 // 2), *array.shape[1:]), value, array.dtype)
    grown[: len(array)] = array
    return grown
