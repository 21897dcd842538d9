"""ConvergedQuery, one query over properties, graph, text and meaning, and the check of all its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np

from embedded_db.checks import is_property_name, parse_integer, parse_name, parse_number, parse_text, parse_vector
from embedded_db.errors import InvalidQueryError, excerpt

Operator = Literal[
    "Equals",
    "NotEquals",
    "GreaterThan",
    "LessThan",
    "GreaterThanOrEqual",
    "LessThanOrEqual",
    "In",
    "Contains",
]
Direction = Literal["Outbound", "Inbound", "Both"]
OPERATORS, DIRECTIONS = get_args(Operator), get_args(Direction)
_NAMES = ("property", "property_name", "field")
# A search that goes deeper reaches all of a connected graph.
MAX_DEPTH = 64


@dataclass(frozen=True)
class StructuralFilter:
    """A condition on a property.

    Attributes:
        property: its name; dots lead into dictionaries, as in "metadata.priority".
        operator: "Equals", "NotEquals" (its opposite, so also without the property), "GreaterThan", "LessThan",
            "GreaterThanOrEqual", "LessThanOrEqual" (among numbers or among strings), "In" (a list), or "Contains" (a
            part of a string, or a value of a list).
        value: a string, a number, True, False or None; for "In" a list of them. A number never equals a string or a
            boolean. A property that is missing equals None.
    """

    property: str
    operator: Operator
    value: Any


@dataclass(frozen=True)
class GraphFilter:
    """The nodes that can be reached from one.

    Attributes:
        start_node_id: where the search starts; the start is among the results.
        direction: "Outbound" follows edges, "Inbound" goes against them, "Both" does either.
        edge_type: only edges of this type; None takes all.
        depth: the most edges on the way.
    """

    start_node_id: str
    direction: Direction = "Outbound"
    edge_type: str | None = None
    depth: int = 1


@dataclass(frozen=True, eq=False)
class SemanticQuery:
    """The meaning that results are ranked by.

    Attributes:
        text: is embedded as a query; or else
        vector: of the model of the database's vectors.
        threshold: the cosine that every result reaches or exceeds; None takes all.
    """

    text: str | None = None
    vector: Any = None
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class ConvergedQuery:
    """A query of up to four parts, each also as a dictionary; a result meets all of them, but see `text_query`.

    Attributes:
        structural_filters: conditions on properties.
        graph_filter: the nodes that can be reached from one.
        semantic_query: the meaning that results are ranked by.
        text_query: words that a result's content holds, all of them. With a semantic part, the two rankings are fused,
            and results without the words come, too, if they are near enough in meaning.
        limit: the most results.
        offset: how many are left out first.
    """

    structural_filters: Iterable[StructuralFilter | Mapping[str, Any]] = field(default_factory=list)
    graph_filter: GraphFilter | Mapping[str, Any] | None = None
    semantic_query: SemanticQuery | Mapping[str, Any] | None = None
    text_query: str | None = None
    limit: int = 10
    offset: int = 0

    def __post_init__(self) -> None:
        # A generator would be empty the second time that the query is used.
        if isinstance(self.structural_filters, Iterator):
            object.__setattr__(self, "structural_filters", list(self.structural_filters))


@dataclass(frozen=True, eq=False)
class ParsedQuery:
    """A query whose parts are known to be usable."""

    filters: list[StructuralFilter]
    graph: GraphFilter | None
    semantic: SemanticQuery | None
    words: list[str]
    limit: int
    offset: int


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
    parsed = ParsedQuery(
        filters=[_parse_filter(one) for one in given or ()],
        graph=_parse_graph(query.graph_filter),
        semantic=_parse_semantic(query.semantic_query),
        words=_parse_words(query.text_query),
        limit=parse_integer("limit", query.limit, 1, InvalidQueryError),
        offset=parse_integer("offset", query.offset, 0, InvalidQueryError),
    )
    if not (parsed.filters or parsed.graph or parsed.semantic or parsed.words):
        raise InvalidQueryError(
            "the query asks for nothing: give structural_filters, graph_filter, semantic_query or text_query"
        )
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
