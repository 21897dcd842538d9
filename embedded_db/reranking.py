"""A new order of the best results, by the scores of a reranker."""

from __future__ import annotations

from dataclasses import replace

from embedded_db.query import DocumentRanker, ParsedQuery
from embedded_db.records import SearchResult

# So many results are ordered anew together, so that the pages of a query do not overlap.
_BLOCK = 100


def widen(query: ParsedQuery) -> ParsedQuery:
    """Return the query of the blocks that a page lies in; a query without a reranker as it is."""
    if query.rerank is None:
        return query
    start = query.offset - query.offset % _BLOCK
    end = query.offset + query.limit
    return replace(query, offset=start, limit=min(end + -end % _BLOCK - start, 2**63 - 1))


def reranked(query: ParsedQuery, found: list[SearchResult]) -> list[SearchResult]:
    """Return a query's page of the results of `widen`, in each block the best score first."""
    if query.rerank is None:
        return found
    ordered: list[SearchResult] = []
    for start in range(0, len(found), _BLOCK):
        ordered += _order(query.rerank, query.text, found[start : start + _BLOCK])
    first = query.offset % _BLOCK
    return ordered[first : first + query.limit]


def _order(ranker: DocumentRanker, text: str, block: list[SearchResult]) -> list[SearchResult]:
    """Return results by their scores; nodes without content come last."""
    contents = [one.node.properties.get("content") or "" for one in block]
    with_content = [index for index, content in enumerate(contents) if content.strip()]
    ranked = ranker.rerank(text, [contents[index] for index in with_content])
    ordered = [replace(block[with_content[index]], rerank_score=float(score)) for index, score in ranked]
    return ordered + [one for one, content in zip(block, contents, strict=True) if not content.strip()]
