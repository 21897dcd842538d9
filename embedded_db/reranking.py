"""A new order of the best results, by the scores of a reranker."""

from __future__ import annotations

from dataclasses import replace

from embedded_db.query import ParsedQuery
from embedded_db.records import SearchResult

# So many of the best results are ordered anew, or more where the page ends later.
_MOST = 100


def widen(query: ParsedQuery) -> ParsedQuery:
    """Return the query of the results that are ordered anew; a query without a reranker as it is."""
    if query.rerank is None:
        return query
    return replace(query, offset=0, limit=max(_MOST, query.offset + query.limit))


def reranked(query: ParsedQuery, found: list[SearchResult]) -> list[SearchResult]:
    """Return a query's page of the results of `widen`, the best score first; nodes without content come last."""
    if query.rerank is None:
        return found
    contents = [one.node.properties.get("content") or "" for one in found]
    with_content = [index for index, content in enumerate(contents) if content.strip()]
    ranked = query.rerank.rerank(query.text, [contents[index] for index in with_content])
    ordered = [replace(found[with_content[index]], rerank_score=float(score)) for index, score in ranked]
    ordered += [one for one, content in zip(found, contents, strict=True) if not content.strip()]
    return ordered[query.offset : query.offset + query.limit]
