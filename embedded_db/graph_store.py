"""The part of the database that holds chats, messages, all other nodes, and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedded_db import edges, nodes
from embedded_db.checks import parse_name, parse_node
from embedded_db.errors import InvalidRecordError
from embedded_db.records import CHAT, MESSAGE, Edge, MentionedEntity, Node
from embedded_db.store import Store


class GraphStore(Store):
    """Creates, returns, changes and deletes nodes and edges."""

    # Chats and messages

    def create_chat(self, title: str | None = None, topic: str | None = None, **properties: Any) -> Chat:
        """Create a chat, to which messages are added; `properties` are any others."""
        node = self.create_node({**properties, "type": CHAT, "title": title, "topic": topic})
        assert isinstance(node, Chat)
        return node

    def create_message(
        self,
        chat_id: str,
        content: str,
        sender: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Node:
        """Create a message in a chat, with an edge CONTAINS from it, and queue its enrichment; see `create_node`."""
        own = {"chat_id": chat_id, "content": content, "sender": sender, "role": role, "metadata": metadata}
        for name, value in (("chat_id", chat_id), ("content", content)):
            if value is None:
                raise InvalidRecordError(f"a message needs {name}, found None")
        return self.create_node({**properties, **own, "type": MESSAGE})

    # Nodes

    def create_node(self, node: Mapping[str, Any]) -> Node:
        """Create a node and return it.

        Args:
            node: its `type` and properties, and, if they are to be chosen, its `id` and `created_at` (seconds since
                1970). With a `chat_id`, it belongs to that chat. A "Message" with `content` is enriched.

        Raises:
            NodeNotFoundError: the chat does not exist.
            InvalidRecordError: the id is taken, or a property is not usable.
        """
        return self.insert_nodes([node])[0]

    def insert_nodes(self, given: Iterable[Mapping[str, Any]]) -> list[Node]:
        """Create nodes in one transaction: all of them or none; see `create_node`."""
        new = [parse_node(one) for one in given]
        with self._writing() as tx:
            nodes.insert_nodes(tx, new)
        self._weaver.wake()
        return [self._own(node) for node in new]

    def get_node(self, node_id: str) -> Node | None:
        """Return a node, a `Chat` if it is one, or None."""
        node = self._read(nodes.find_node, parse_name("node_id", node_id))
        return node and self._own(node)

    def update_node(self, node_id: str, properties: Mapping[str, Any]) -> Node:
        """Change properties of a node and return it; None removes one.

        With another `content`, the vector and the mentions of the old one are removed, and a message is enriched again.

        Raises:
            NodeNotFoundError: there is no such node.
            InvalidRecordError: a property is not usable, or cannot be changed.
        """
        node = self._write(nodes.update_node, parse_name("node_id", node_id), properties)
        self._weaver.wake()
        return self._own(node)

    def delete_node(self, node_id: str) -> None:
        """Delete a node with its edges, vector and jobs; a chat takes its messages along.

        Raises:
            NodeNotFoundError: there is no such node.
        """
        self._write(nodes.delete_node, parse_name("node_id", node_id))

    # Edges

    def create_edge(
        self,
        from_id: str,
        to_id: str,
        type: str,  # noqa: A002 - the name that callers use
        properties: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Edge:
        """Create an edge between two nodes and return it.

        Raises:
            NodeNotFoundError: one of them does not exist.
            InvalidRecordError: the id is taken, or a property is not usable.
        """
        return self.insert_edges(
            [{"from_id": from_id, "to_id": to_id, "type": type, "properties": properties, "id": id}]
        )[0]

    def insert_edges(self, given: Iterable[Mapping[str, Any]]) -> list[Edge]:
        """Create edges in one transaction: all of them or none.

        Args:
            given: dictionaries of `from_id`, `to_id`, `type`, and perhaps `properties` and `id`; see `create_edge`.
        """
        new = [edges.parse_edge(one) for one in given]
        with self._writing() as tx:
            edges.insert_edges(tx, new)
        return new

    def get_edge(self, edge_id: str) -> Edge | None:
        """Return an edge, or None."""
        return self._read(edges.find_edge, parse_name("edge_id", edge_id))

    def update_edge(self, edge_id: str, properties: Mapping[str, Any]) -> Edge:
        """Change properties of an edge and return it; None removes one.

        Raises:
            EdgeNotFoundError: there is no such edge.
        """
        return self._write(edges.update_edge, parse_name("edge_id", edge_id), properties)

    def delete_edge(self, edge_id: str) -> None:
        """Delete an edge.

        Raises:
            EdgeNotFoundError: there is no such edge.
        """
        self._write(edges.delete_edge, parse_name("edge_id", edge_id))

    def get_entities_mentioned_in(self, node_id: str) -> list[MentionedEntity]:
        """Return the entities that a message mentions, in order, each as often as it is mentioned."""
        return self._read(edges.mentioned_entities, parse_name("node_id", node_id))

    def _own(self, node: Node) -> Node:
        """Return a node as what its type makes of it."""
        if node.type != CHAT:
            return node
        return Chat(node.id, node.type, node.created_at, node.properties, self)


@dataclass(frozen=True)
class Chat(Node):
    """A chat, to which messages are added."""

    db: GraphStore = field(repr=False, compare=False)

    def add_message(
        self, sender: str | None = None, content: str | None = None, role: str | None = None, **properties: Any
    ) -> Node:
        """Create a message in this chat; see `EmbeddedDB.create_message`."""
        return self.db.create_message(chat_id=self.id, content=content, sender=sender, role=role, **properties)  # type: ignore[arg-type]
