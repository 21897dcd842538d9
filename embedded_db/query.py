"""ConvergedQuery, one query over properties, graph, text and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

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


class DocumentRanker(Protocol):
    """Orders texts by how well they answer a question, as a `Reranker` does."""

    def rerank(self, query: str, documents: Iterable[str]) -> list[tuple[int, float]]:
        """Return the documents' indices and scores, the best first."""
        ...


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
        rerank: a `Reranker`, which orders the best results anew by its scores of the query's text and their content.
    """

    structural_filters: Iterable[StructuralFilter | Mapping[str, Any]] = field(default_factory=list)
    graph_filter: GraphFilter | Mapping[str, Any] | None = None
    semantic_query: SemanticQuery | Mapping[str, Any] | None = None
    text_query: str | None = None
    limit: int = 10
    offset: int = 0
    rerank: DocumentRanker | None = None

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
    text: str
    rerank: DocumentRanker | None
