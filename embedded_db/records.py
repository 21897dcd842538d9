"""Nodes, edges, vectors, mentions, results and paths, as the database returns them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHAT, MESSAGE, ENTITY, SUMMARY = "Chat", "Message", "Entity", "Summary"
CONTAINS, MENTIONS, SIMILAR, SUMMARIZES = "CONTAINS", "MENTIONS", "IS_SEMANTICALLY_SIMILAR_TO", "SUMMARIZES"


class _Properties:
    """Gives the properties of a record as attributes."""

    properties: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for attributes before there are any.
        if not name.startswith("__") and name != "properties" and name in self.properties:
            return self.properties[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or property {name!r}")


@dataclass(frozen=True)
class Node(_Properties):
    """A node; its properties are attributes as well (`node.content`).

    Attributes:
        id: its name in the database.
        type: its kind: "Chat", "Message", "Entity", "Summary", "Attachment" or any other.
        created_at: seconds since 1970, by the clock of the machine that created it.
        properties: everything else that it holds, as JSON has it.
    """

    id: str
    type: str
    created_at: float
    properties: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Edge(_Properties):
    """A directed edge between two nodes; its properties are attributes as well.

    Attributes:
        id: its name in the database.
        from_id: the node that it leaves.
        to_id: the node that it leads to.
        type: its kind: "CONTAINS", "MENTIONS", "IS_SEMANTICALLY_SIMILAR_TO", "SUMMARIZES" or any other.
        created_at: seconds since 1970.
        properties: everything else that it holds, as JSON has it.
    """

    id: str
    from_id: str
    to_id: str
    type: str
    created_at: float
    properties: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class ModelIdentity:
    """The model that vectors come from; only vectors of equal identities are compared.

    Attributes:
        name: the name in the catalogue, or else its repository or directory.
        revision: commit of its repository; "" where it is not known.
        dimension: how many values a vector has.
        prompt: name of the prompt that went before each text, or "".
    """

    name: str
    revision: str
    dimension: int
    prompt: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        prompt = f", prompt {self.prompt!r}" if self.prompt else ""
        return f"{self.name!r}{revision} ({self.dimension} dimensions{prompt})"


@dataclass(frozen=True, eq=False)
class StoredEmbedding:
    """The vector of a node.

    Attributes:
        node_id: the node that it describes.
        vector: float32, read-only.
        model: the model that it comes from.
        created_at: seconds since 1970.
    """

    node_id: str
    vector: NDArray[np.float32]
    model: ModelIdentity
    created_at: float


@dataclass(frozen=True)
class MentionedEntity:
    """An entity and the place where a message mentions it.

    Attributes:
        node_id: the entity's node, which all messages share that mention it.
        label: its text, as in "Paris".
        entity_type: its kind, as in "GPE".
        start: index of its first character in the message; None where the edge does not say.
        end: index after its last character, or None.
    """

    node_id: str
    label: str | None
    entity_type: str | None
    start: int | None
    end: int | None


@dataclass(frozen=True)
class SearchResult:
    """A node that a query found.

    Attributes:
        node: the node.
        similarity_score: cosine of its vector and the query's; None without a semantic part or without a vector.
        fused_score: sum of its reciprocal ranks by meaning and by text; None unless the query had both.
        rerank_score: the score of the query's reranker; None without one, or for a node without content.
    """

    node: Node
    similarity_score: float | None = None
    fused_score: float | None = None
    rerank_score: float | None = None


@dataclass(frozen=True)
class Path:
    """A path between two nodes.

    Attributes:
        nodes: from the start to the end, both included.
        edges: those between them, one fewer.
    """

    nodes: list[Node]
    edges: list[Edge]
