"""The check of all parts of a query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from embedded_db.checks import is_property_name, parse_integer, parse_name, parse_number, parse_text, parse_vector
from embedded_db.errors import InvalidQueryError, excerpt
from embedded_db.query import (
    DIRECTIONS,
    OPERATORS,
    ConvergedQuery,
    Direction,
    GraphFilter,
    ParsedQuery,
    SemanticQuery,
    StructuralFilter,
)

_NAMES = ("property", "property_name", "field")
# A search that goes deeper reaches all of a connected graph.
MAX_DEPTH = 64


def parse_query(query: ConvergedQuery) -> ParsedQuery:
    """Return a query once all of its parts are known to be usable.

    Raises:
        InvalidQueryError: one is not; the message names it.
    """
    if not isinstance(query, ConvergedQuery):
        raise InvalidQueryError(f"a query must be a ConvergedQuery, found {excerpt(query)}")
    given = query.structural_filters
    if given is not None and (isinstance(given, (str, Mapping)) or not isinstance(given, Iterable)):
        raise InvalidQueryError(f"structural_filters must be a list of filters, found {excerpt(given)}")
    semantic = _parse_semantic(query.semantic_query)
    parsed = ParsedQuery(
        filters=[_parse_filter(one) for one in given or ()],
        graph=_parse_graph(query.graph_filter),
        semantic=semantic,
        words=_parse_words(query.text_query),
        limit=parse_integer("limit", query.limit, 1, InvalidQueryError),
        offset=parse_integer("offset", query.offset, 0, InvalidQueryError),
        text=(semantic and semantic.text) or query.text_query or "",
        rerank=query.rerank,
    )
    if not (parsed.filters or parsed.graph or parsed.semantic or parsed.words):
        raise InvalidQueryError(
            "the query asks for nothing: give structural_filters, graph_filter, semantic_query or text_query"
        )
    if query.rerank is not None and not callable(getattr(query.rerank, "rerank", None)):
        raise InvalidQueryError(f"rerank must be a Reranker, found {excerpt(query.rerank)}")
    if query.rerank is not None and not parsed.text:
        raise InvalidQueryError("rerank needs a question: give text_query, or semantic_query its text")
    return parsed


def _parse_filter(given: StructuralFilter | Mapping[str, Any]) -> StructuralFilter:
    if isinstance(given, StructuralFilter):
        name, operator, value = given.property, given.operator, given.value
    else:
        fields = _fields("a structural filter", given, (*_NAMES, "operator", "value"))
        names = [fields[key] for key in _NAMES if key in fields]
        if len(names) != 1 or "operator" not in fields or "value" not in fields:
            raise InvalidQueryError(
                "a structural filter needs property, operator and value, found "
                f"{', '.join(map(repr, fields)) or 'nothing'}"
            )
        name, operator, value = names[0], fields["operator"], fields["value"]
    name = parse_name("the property of a filter", name, InvalidQueryError)
    if not all(map(is_property_name, name.split("."))):
        raise InvalidQueryError(
            f"the property of a filter is a name or names joined by dots, without quotes, found {excerpt(name)}"
        )
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise InvalidQueryError(f"operator must be one of {', '.join(OPERATORS)}, found {excerpt(operator)}")
    what = f"the value of {operator} for {name!r}"
    if operator == "In":
        # A generator would be empty the second time that the filter is used.
        if isinstance(value, (str, bytes, Mapping, Iterator)) or not isinstance(value, Iterable):
            raise InvalidQueryError(f"{what} must be a list, found {excerpt(value)}")
        return StructuralFilter(name, operator, [_parse_scalar(what, one) for one in value])
    value = _parse_scalar(what, value)
    if operator.startswith(("Greater", "Less")) and (value is None or isinstance(value, bool)):
        raise InvalidQueryError(f"{what} must be a number or a string, found {value}")
    return StructuralFilter(name, operator, value)


def _parse_scalar(what: str, value: object) -> str | int | float | bool | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return parse_text(what, value, InvalidQueryError)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        raise InvalidQueryError(f"{what} must be an integer of 64 bits, found {excerpt(value)}")
    if isinstance(value, float):
        return parse_number(what, value, InvalidQueryError)
    raise InvalidQueryError(f"{what} must be a string, a number, True, False or None, found {excerpt(value)}")


def _parse_graph(given: GraphFilter | Mapping[str, Any] | None) -> GraphFilter | None:
    if given is None:
        return None
    if not isinstance(given, GraphFilter):
        fields = _fields("graph_filter", given, GraphFilter.__dataclass_fields__)
        if "start_node_id" not in fields:
            raise InvalidQueryError("graph_filter needs start_node_id")
        given = GraphFilter(**fields)
    parse_name("start_node_id", given.start_node_id, InvalidQueryError)
    depth = parse_integer("depth", given.depth, 0, InvalidQueryError)
    if depth > MAX_DEPTH:
        raise InvalidQueryError(f"depth must be at most {MAX_DEPTH}, found {depth}")
    return GraphFilter(given.start_node_id, parse_direction(given.direction), parse_edge_type(given.edge_type), depth)


def parse_direction(value: object) -> Direction:
    """Return a direction that there is."""
    if not isinstance(value, str) or value not in DIRECTIONS:
        raise InvalidQueryError(f"direction must be one of {', '.join(DIRECTIONS)}, found {excerpt(value)}")
    return cast(Direction, value)


def parse_edge_type(value: object) -> str | None:
    """Return an edge's type, or None for all."""
    return None if value is None else parse_name("edge_type", value, InvalidQueryError)


def _parse_semantic(given: SemanticQuery | Mapping[str, Any] | None) -> SemanticQuery | None:
    if given is None:
        return None
    if not isinstance(given, SemanticQuery):
        given = SemanticQuery(**_fields("semantic_query", given, SemanticQuery.__dataclass_fields__))
    if (given.text is None) == (given.vector is None):
        raise InvalidQueryError("semantic_query needs either text or vector")
    threshold = given.threshold
    if threshold is not None:
        threshold = parse_number("threshold", threshold, InvalidQueryError)
        if not -1 <= threshold <= 1:
            raise InvalidQueryError(f"threshold is a cosine, from -1 to 1, found {threshold}")
    if given.vector is not None:
        return SemanticQuery(None, parse_vector(given.vector, InvalidQueryError), threshold)
    text = parse_text("the text of semantic_query", given.text, InvalidQueryError)
    if not text.strip():
        raise InvalidQueryError("the text of semantic_query is blank")
    return SemanticQuery(text, None, threshold)


def _parse_words(given: str | None) -> list[str]:
    if given is None:
        return []
    words = [
        word
        for word in parse_text("text_query", given, InvalidQueryError).split()
        if any(character.isalnum() for character in word)
    ]
    if not words:
        raise InvalidQueryError(f"text_query holds no word, found {excerpt(given)}")
    return words


def _fields(name: str, given: object, known: Iterable[str]) -> dict[str, Any]:
    """Return a dictionary once it is known that it has no other keys than the known ones."""
    if not isinstance(given, Mapping):
        raise InvalidQueryError(f"{name} must be a dictionary, found {excerpt(given)}")
    for key in given:
        if key not in known:
            raise InvalidQueryError(f"{name} has no {excerpt(key)}; it has {', '.join(known)}")
    return dict(given)
