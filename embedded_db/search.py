"""The plan of a query: candidates by properties and graph, then a ranking by meaning, by text, or by both fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db.engine import ALL, ROUNDING, TOLERANCE, Keys, Ranking, Transaction
from embedded_db.graph import reached_keys
from embedded_db.nodes import COLUMNS, key_of, make_node, nodes_by_key
from embedded_db.query import ParsedQuery
from embedded_db.records import SearchResult

# The constant of reciprocal rank fusion, as it was published: a rank counts 1 / (60 + rank).
_FUSION = 60
# Most edges on the way that a recursive query follows.
_SHALLOW = 2
# The order of results that are otherwise equal.
_ORDER = "n.created_at, n.id"


@dataclass(frozen=True)
class _Scored:
    """A result before its node is read, with all that it is ordered by."""

    key: int
    fused: float | None
    similarity: float | None


def search(
    tx: Transaction, ranking: Ranking, query: ParsedQuery, vector: NDArray[np.float32] | None
) -> list[SearchResult]:
    """Return the results of a query in their order.

    Args:
        tx: all parts of the query see its one state of the database.
        ranking: compares the database's vectors.
        query: what is asked.
        vector: that of the query's semantic part; None without one, or where the database has no vectors.
    """
    where, values = _candidates(tx, query)
    page = {"limit": query.limit, "offset": query.offset}
    if query.semantic is None:
        source, order = "node n", _ORDER
        if query.words:
            source, order = tx.TEXT_SOURCE, f"{tx.TEXT_RANK}, {_ORDER}"
            values["words"] = tx.match(query.words)
        sql = f"SELECT {COLUMNS} FROM {source} WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset"
        return [SearchResult(make_node(row)) for row in tx.rows(sql, **values, **page)]
    scored = list[_Scored]()
    if query.words:
        scored = _fuse(tx, ranking, query, where, values, vector)
    elif vector is not None:
        most = query.offset + query.limit
        best = ranking.best(tx, where, values, vector, most, query.semantic.threshold)
        scored = [_Scored(key, None, score) for key, score in best.items()]
    return _page(tx, scored, query)


def _candidates(tx: Transaction, query: ParsedQuery) -> tuple[str, dict[str, Any]]:
    """Return the condition on `node n` that properties and graph make, and the values that it binds."""
    conditions = tx.conditions()
    parts = [f"({conditions.of(one)})" for one in query.filters]
    values = conditions.values
    if query.graph is not None:
        graph, start = query.graph, key_of(tx, query.graph.start_node_id)
        if graph.depth > _SHALLOW:
            parts.append(f"n.key IN ({tx.each('reached')})")
            values["reached"] = reached_keys(tx, start, graph.direction, graph.edge_type, graph.depth)
        else:
            parts.append(f"n.key IN ({tx.reached(graph)})")
            values |= {"start": start, "depth": graph.depth}
            if graph.edge_type is not None:
                values["edge_type"] = graph.edge_type
    return " AND ".join(parts) or ALL, values


def _text_ranks(
    tx: Transaction, query: ParsedQuery, where: str, values: dict[str, Any]
) -> tuple[Keys, NDArray[np.float64]]:
    """Return the candidates that hold the query's words, and how well these match: the lower, the better."""
    rows = tx.rows(
        f"SELECT n.key, {tx.TEXT_RANK} FROM {tx.TEXT_SOURCE} WHERE {where}",
        words=tx.match(query.words),
        **values,
    )
    return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.float64)


def _fuse(
    tx: Transaction,
    ranking: Ranking,
    query: ParsedQuery,
    where: str,
    values: dict[str, Any],
    vector: NDArray[np.float32] | None,
) -> list[_Scored]:
    """Fuse the rankings by meaning and by text; with a threshold, a result by text has to reach it too."""
    keys, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    if vector is not None:
        keys, scores = ranking.similarities(tx, where, values, vector)
    text_keys, text_scores = _text_ranks(tx, query, where, values)
    threshold = query.semantic.threshold if query.semantic else None
    if threshold is not None:
        if vector is not None:
            near = scores >= threshold - TOLERANCE - ROUNDING
            keys, scores = keys[near], scores[near]
            unsure = np.flatnonzero(scores < threshold + ROUNDING)
            missing = unsure[~(ranking.exact(tx, vector, keys[unsure]) >= threshold - TOLERANCE)]
            keys, scores = np.delete(keys, missing), np.delete(scores, missing)
        both = np.isin(text_keys, keys)
        text_keys, text_scores = text_keys[both], text_scores[both]
    most = query.offset + query.limit
    distances = -np.round(scores, 5)
    ordered = np.sort(distances)
    if keys.size > most:
        # Without the words, what is ranked lower by meaning than so many others is not among the results.
        kept = (distances <= ordered[most - 1]) | np.isin(keys, text_keys)
        keys, distances = keys[kept], distances[kept]
    union = np.union1d(keys, text_keys)
    fused = np.zeros(union.size)
    fused[np.searchsorted(union, keys)] += 1 / (_FUSION + _ranks(distances, ordered))
    fused[np.searchsorted(union, text_keys)] += 1 / (_FUSION + _ranks(text_scores, np.sort(text_scores)))
    if union.size > most:
        kept = fused >= np.partition(fused, union.size - most)[union.size - most]
        union, fused = union[kept], fused[kept]
    found = np.isin(union, keys)
    exact = np.full(union.size, np.nan)
    if vector is not None and found.any():
        exact[found] = ranking.exact(tx, vector, union[found])
    return [
        _Scored(int(key), float(score), None if np.isnan(similarity) else float(similarity))
        for key, score, similarity in zip(union, fused, exact, strict=True)
    ]


def _ranks(values: NDArray[np.floating[Any]], ordered: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the rank of values among ordered ones, from 1 for the smallest; equal ones share theirs."""
    ranks: NDArray[np.int64] = 1 + np.searchsorted(ordered, values, side="left")
    return ranks


def _page(tx: Transaction, scored: list[_Scored], query: ParsedQuery) -> list[SearchResult]:
    """Return the results from `offset` on, ordered by fusion, similarity, time and id."""
    places = {
        key: (created_at, node_id)
        for key, created_at, node_id in tx.rows(
            f"SELECT n.key, n.created_at, n.id FROM node n WHERE n.key IN ({tx.each('keys')})",
            keys=[one.key for one in scored],
        )
    }
    # A matrix in memory may know of nodes that this transaction does not see yet.
    seen = [one for one in scored if one.key in places]
    seen.sort(key=lambda one: (-(one.fused or 0.0), _descending(one.similarity), *places[one.key]))
    page = seen[query.offset : query.offset + query.limit]
    nodes = nodes_by_key(tx, [one.key for one in page])
    return [SearchResult(nodes[one.key], one.similarity, one.fused) for one in page]


def _descending(similarity: float | None) -> float:
    """Return a key that sorts the most similar first, and what has no vector last."""
    return 2.0 if similarity is None else -similarity
