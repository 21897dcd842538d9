"""The ranking of vectors by the server, and the exact cosines of the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db.embeddings import STORED, model_key
from embedded_db.engine import ALL, ROUNDING, TOLERANCE, Keys, Scores, cosines, reaching, unit_rows
from embedded_db.postgres.transaction import PostgresTransaction, UnitVector

# This many more are looked for than are asked for, which shows whether the last of them ties with others.
_SPARE = 32
# Where ties go on beyond what was looked for, the next look is for so many times as many.
_GROWTH = 8
# The index looks at four times as many as it returns, at least at these, and at most at what pgvector allows.
_LEAST_LOOKED_AT, _MOST_LOOKED_AT = 200, 1000


class ServerRanking:
    """Compares vectors in the server: exactly, or, without any filter, by an HNSW index if there is one."""

    def best(
        self,
        tx: PostgresTransaction,
        where: str,
        values: dict[str, Any],
        query: NDArray[np.float32],
        most: int,
        threshold: float | None,
    ) -> dict[int, float]:
        """Return the exact cosines of the best nodes, and of all that tie with the last, by their keys."""
        model = _model_of(tx, query)
        if model is None:
            return {}
        keys = _nearest_by_index(tx, model, query, most) if where == ALL else None
        if keys is None:
            keys = _nearest(tx, model, where, values, query, most, threshold)
        return reaching(keys, self.exact(tx, query, keys), threshold)

    def similarities(
        self, tx: PostgresTransaction, where: str, values: dict[str, Any], query: NDArray[np.float32]
    ) -> tuple[Keys, Scores]:
        """Return the nodes that meet a condition and have a vector, and their cosines with the query."""
        model = _model_of(tx, query)
        if model is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        # As two strings of bytes, since a row for each would take several times as long.
        row = tx.binary_row(
            f"WITH scored AS ({_scored(where)})"
            " SELECT string_agg(int8send(key), ''::bytea), string_agg(float4send(CAST(-distance AS real)), ''::bytea)"
            " FROM scored",
            **values,
            query_model=model,
            query_vector=UnitVector.of(query),
        )
        keys, scores = row or (None, None)
        return (
            np.frombuffer(keys or b"", ">i8").astype(np.int64),
            np.frombuffer(scores or b"", ">f4").astype(np.float32),
        )

    def best_of_each(
        self,
        tx: PostgresTransaction,
        where: str,
        values: dict[str, Any],
        queries: Sequence[tuple[int, NDArray[np.float32]]],
        most: int,
        threshold: float | None,
    ) -> list[dict[int, float]]:
        """Return what `best` would for the vectors of several nodes, each without the node itself."""
        others = f"{where} AND n.key <> :own"
        return [self.best(tx, others, {**values, "own": own}, query, most, threshold) for own, query in queries]

    def exact(self, tx: PostgresTransaction, query: NDArray[np.float32], keys: Keys) -> NDArray[np.float64]:
        """Return cosines that depend on nothing but the two vectors, so equal vectors tie; NaN where one is gone."""
        rows = tx.binary_rows(
            f"SELECT node_key, vector FROM embedding WHERE model_key = :model AND node_key IN ({tx.each('keys')})",
            model=model_key(tx),
            keys=keys.tolist(),
        )
        scores = np.full(keys.size, np.nan)
        if rows:
            vectors = np.frombuffer(b"".join(vector for _, vector in rows), STORED).reshape(len(rows), -1)
            exact = cosines(unit_rows(vectors).astype(np.float32), query)
            of_key = {key: score for (key, _), score in zip(rows, exact, strict=True)}
            scores = np.array([of_key.get(key, np.nan) for key in keys.tolist()])
        return scores


def _model_of(tx: PostgresTransaction, query: NDArray[np.float32]) -> int | None:
    """Return the key of the model of a query, or None where there are no vectors that it can be compared with."""
    key: int | None = tx.value(
        "SELECT key FROM model WHERE state = 'active' AND dimension = :dimension", dimension=query.size
    )
    return key


def _scored(where: str) -> str:
    """Return a query of the nodes that meet a condition, and of minus their products with the query's vector."""
    source = "unit_vector u" if where == ALL else "unit_vector u JOIN node n ON n.key = u.node_key"
    return (
        "SELECT u.node_key AS key, u.unit <#> CAST(:query_vector AS vector) AS distance"
        f" FROM {source} WHERE u.model_key = :query_model AND {where}"
    )


def _nearest(
    tx: PostgresTransaction,
    model: int,
    where: str,
    values: dict[str, Any],
    query: NDArray[np.float32],
    most: int,
    threshold: float | None,
) -> Keys:
    """Return the nearest by a look at all that meet a condition, and all that may tie with the last of them."""
    if where == ALL:
        # The planner takes a product of vectors for as cheap as one of numbers, and so workers for too dear.
        tx.run("SELECT set_config('parallel_setup_cost', '0', TRUE)")
    near = "" if threshold is None else " WHERE distance <= :farthest"
    wanted = most + _SPARE
    while True:
        rows = tx.rows(
            f"SELECT key, distance FROM ({_scored(where)}) AS scored{near} ORDER BY distance LIMIT :wanted",
            **values,
            query_model=model,
            query_vector=UnitVector.of(query),
            farthest=-(threshold or 0.0) + TOLERANCE + ROUNDING,
            wanted=wanted,
        )
        if not _ties_go_on(rows, most, wanted):
            return np.array([key for key, _ in rows], np.int64)
        wanted *= _GROWTH


def _nearest_by_index(tx: PostgresTransaction, model: int, query: NDArray[np.float32], most: int) -> Keys | None:
    """Return the nearest that an HNSW index finds; None without one, or where it could miss some that tie or be short.

    An index has to be of the model's vectors alone, so the statement names model and dimension as the index does.
    """
    wanted = most + _SPARE
    looked_at = max(_LEAST_LOOKED_AT, 4 * wanted)
    if looked_at > _MOST_LOOKED_AT or not _has_index(tx, model, query.size):
        return None
    tx.run("SELECT set_config('hnsw.ef_search', CAST(:looked_at AS text), TRUE)", looked_at=looked_at)
    unit = f"CAST(unit AS vector({query.size}))"
    rows = tx.rows(
        f"SELECT node_key, {unit} <#> CAST(:query_vector AS vector) AS distance FROM unit_vector"
        f" WHERE model_key = {model} ORDER BY distance LIMIT :wanted",
        query_vector=UnitVector.of(query),
        wanted=wanted,
    )
    if len(rows) < wanted or _ties_go_on(rows, most, wanted):
        return None
    return np.array([key for key, _ in rows], np.int64)


def _ties_go_on(rows: Sequence[tuple[Any, ...]], most: int, wanted: int) -> bool:
    """Return whether nodes beyond those found may tie with the last that was asked for."""
    return len(rows) == wanted and bool(rows[-1][1] <= rows[most - 1][1] + 2 * ROUNDING)


def _has_index(tx: PostgresTransaction, model: int, dimension: int) -> bool:
    """Return whether there is an index that is ready to use."""
    found = tx.rows(
        "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_am a ON a.oid = c.relam"
        " WHERE a.amname = 'hnsw' AND i.indisvalid AND i.indrelid = to_regclass('unit_vector')"
    )
    wanted = (f"vector({dimension})", "vector_ip_ops", f"model_key = {model})")
    return any(all(part in definition for part in wanted) for (definition,) in found)
