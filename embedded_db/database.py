"""EmbeddedDB, the facade: messages in, enriched and searchable out."""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.closeable import Closeable
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import Embedder
from akidb_mlx.options import parse_timeout
from embedded_db import edges, embeddings, graph, jobs, nodes, reports
from embedded_db.checks import parse_integer, parse_name, parse_node, parse_number, parse_vector
from embedded_db.errors import (
    EnrichmentError,
    InvalidQueryError,
    InvalidRecordError,
    ModelMismatchError,
    NodeNotFoundError,
    excerpt,
)
from embedded_db.matrix import VectorMatrix
from embedded_db.models import Extractor, Models, identity
from embedded_db.query import (
    ConvergedQuery,
    Direction,
    GraphFilter,
    ParsedQuery,
    SemanticQuery,
    StructuralFilter,
    parse_direction,
    parse_edge_type,
    parse_query,
)
from embedded_db.records import (
    CHAT,
    MESSAGE,
    Edge,
    MentionedEntity,
    ModelIdentity,
    Node,
    Path,
    SearchResult,
    StoredEmbedding,
)
from embedded_db.search import search
from embedded_db.sqlite.connection import MEMORY, Connections, Transaction
from embedded_db.weaver import Weaver

# Seconds that `close` waits for the batches that run.
_CLOSE_S = 10.0
_Record = TypeVar("_Record")


class EmbeddedDB(Closeable):
    """A database of messages in one file; safe to use from many threads, and from several processes at once.

    with EmbeddedDB("chats.db") as db:
        chat = db.create_chat(title="Project", topic="Rust")
        message = chat.add_message(sender="Alice", content="Alice met Bob in Paris", role="user")
        db.wait_until_enriched(message.id)
        results = db.query(semantic_query={"text": "meetings"})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | str = "minilm-l6-v2",
        extractor: Extractor | None = None,
        weaver: bool = True,
        lock_timeout: float = 5.0,
    ) -> None:
        """Open a database, which is created where there is no file.

        Args:
            path: a file, or ":memory:" for one that is gone when it is closed.
            embedder: embeds messages and queries; the name of a model is loaded when it is first needed.
            extractor: finds entities, as an `EntityExtractor`; None makes one when it is first needed.
            weaver: whether to enrich messages in this process. Their jobs are kept without it, for another process.
            lock_timeout: seconds to wait for a lock that another thread or process holds.

        Raises:
            DatabaseFileError: the file is no database of this package, is of a newer version, or cannot be opened.
            InvalidRecordError: an argument is not usable.
        """
        self._path = _parse_path(path)
        if not isinstance(embedder, (Embedder, str)):
            raise InvalidRecordError(f"embedder must be an Embedder or a model's name, found {excerpt(embedder)}")
        seconds = parse_number("lock_timeout", lock_timeout)
        if not 0 <= seconds <= 86400:
            raise InvalidRecordError(f"lock_timeout must be from 0 to 86400 seconds, found {seconds:g}")
        self._connections = Connections(self._path, seconds)
        self._models = Models(embedder, extractor)
        self._matrix = VectorMatrix()
        self._weaver = Weaver(self._connections, self._models)
        # A database that is dropped without being closed ends its threads too.
        self._stop = weakref.finalize(self, self._weaver.stop)
        if weaver:
            self._weaver.start()

    @classmethod
    def with_default_path(cls, name: str, **options: Any) -> EmbeddedDB:
        """Open the database of a name in `$XDG_DATA_HOME/akidb`, or else in `~/.local/share/akidb`.

        Args:
            name: letters, digits, `_`, `-` and `.`, the first no dot.
            options: those of `EmbeddedDB`.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-][\w.-]{0,99}", parse_name("name", name), re.ASCII):
            raise InvalidRecordError(f"name must be letters, digits, '_', '-' and '.', found {excerpt(name)}")
        home = os.environ.get("XDG_DATA_HOME") or FilePath.home() / ".local" / "share"
        folder = FilePath(home) / "akidb"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRecordError(f"{folder} cannot be created ({error}): set XDG_DATA_HOME") from error
        return cls(folder / f"{name}.db", **options)

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
        with self._connections.write() as tx:
            for node in new:
                nodes.insert_node(tx, node)
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
        with self._connections.write() as tx:
            for edge in new:
                edges.insert_edge(tx, edge)
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

    # Vectors

    def create_embedding(self, node_id: str, vector: Any, model: ModelIdentity | str | None = None) -> StoredEmbedding:
        """Give a node a vector, and return it; a job that would compute one is dropped.

        Args:
            node_id: the node.
            vector: finite numbers, not all 0.
            model: where it comes from. If None, the model of the database's vectors; before the first, that of the
                embedder that the database was opened with, or "unnamed".

        Raises:
            NodeNotFoundError: there is no such node.
            InvalidRecordError: it has a vector already, or this one is not usable.
            ModelMismatchError: the database's vectors come from another model.
        """
        return self.insert_embeddings([(node_id, vector)], model)[0]

    def insert_embeddings(
        self, given: Iterable[tuple[str, Any]], model: ModelIdentity | str | None = None
    ) -> list[StoredEmbedding]:
        """Give nodes their vectors in one transaction: all of them or none; see `create_embedding`."""
        new = [(parse_name("node_id", node_id), parse_vector(vector)) for node_id, vector in given]
        with self._connections.write() as tx:
            return [self._put(tx, node_id, vector, model, replace=False) for node_id, vector in new]

    def get_embedding(self, node_id: str) -> StoredEmbedding | None:
        """Return the vector of a node, or None."""
        return self._read(embeddings.find_embedding, parse_name("node_id", node_id))

    def get_embedding_for_node(self, node_id: str) -> StoredEmbedding | None:
        """Return the vector of a node, or None; the same as `get_embedding`."""
        return self.get_embedding(node_id)

    def update_embedding(self, node_id: str, vector: Any, model: ModelIdentity | str | None = None) -> StoredEmbedding:
        """Replace the vector of a node, or give it one; see `create_embedding`."""
        checked = parse_vector(vector)
        with self._connections.write() as tx:
            return self._put(tx, parse_name("node_id", node_id), checked, model, replace=True)

    def delete_embedding(self, node_id: str) -> None:
        """Delete the vector of a node; nothing is done if it has none.

        Raises:
            NodeNotFoundError: there is no such node.
        """
        with self._connections.write() as tx:
            embeddings.delete_embedding(tx, nodes.key_of(tx, parse_name("node_id", node_id)))

    def search_vectors(self, vector: Any, top_k: int = 10) -> list[SearchResult]:
        """Return the nodes whose vectors are the most similar to one of the same model."""
        limit = parse_integer("top_k", top_k, 1, InvalidQueryError)
        return self.query(semantic_query=SemanticQuery(vector=vector), limit=limit)

    # Queries

    def query(
        self,
        structural_filters: Iterable[StructuralFilter | Mapping[str, Any]] = (),
        graph_filter: GraphFilter | Mapping[str, Any] | None = None,
        semantic_query: SemanticQuery | Mapping[str, Any] | None = None,
        text_query: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> list[SearchResult]:
        """Return the nodes that meet all parts of a query; see `ConvergedQuery` for the parts.

        Results are ordered by similarity, then time, then id; with words only, by how well these match; with words and
        meaning, by the sum of the reciprocal ranks in both.

        Raises:
            InvalidQueryError: a part is not usable, or there is none.
            NodeNotFoundError: the node that the graph part starts at does not exist.
            ModelMismatchError: the query's vector and the database's come from different models.
        """
        return self.execute_query(
            ConvergedQuery(structural_filters, graph_filter, semantic_query, text_query, limit, offset)
        )

    def execute_query(self, query: ConvergedQuery) -> list[SearchResult]:
        """Return the results of a query; see `query`."""
        parsed = parse_query(query)
        vector = self._query_vector(parsed)
        with self._connections.read() as tx:
            if vector is not None:
                _check_model(embeddings.find_model(tx), vector)
            found = search(tx, self._matrix, parsed, None if vector is None else vector[0])
        return [SearchResult(self._own(one.node), one.similarity_score, one.fused_score) for one in found]

    def find_shortest_path(
        self, start_id: str, end_id: str, direction: Direction = "Outbound", edge_type: str | None = None
    ) -> Path | None:
        """Return a path with the fewest edges from one node to another, or None where there is none.

        Raises:
            NodeNotFoundError: one of the nodes does not exist.
            InvalidQueryError: another argument is not usable.
        """
        return self._read(
            graph.find_shortest_path,
            parse_name("start_id", start_id),
            parse_name("end_id", end_id),
            parse_direction(direction),
            parse_edge_type(edge_type),
        )

    # The weaver

    def wait_until_enriched(self, node_id: str, timeout: float | None = None) -> None:
        """Wait until a message has its vector and its entities.

        Args:
            node_id: the message.
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            NodeNotFoundError: there is no such node.
            EnrichmentError: the weaver has given it up; the message holds the cause.
            DeadlineExceededError: `timeout` passed.
        """
        deadline = Deadline(parse_timeout(timeout))
        pause = 0.002
        while True:
            with self._connections.read() as tx:
                open_jobs = jobs.of_node(tx, nodes.key_of(tx, parse_name("node_id", node_id)))
            for kind, failed, error in open_jobs:
                if failed:
                    raise EnrichmentError(
                        f"{kind} of {excerpt(node_id)} failed: {error}; correct the cause and call retry_failed()"
                    )
            if not open_jobs:
                return
            deadline.check()
            time.sleep(pause)
            pause = min(pause * 1.2, 0.05)

    def weaver_status(self) -> reports.WeaverStatus:
        """Report the work that is done, that waits and that has failed, as plain types."""
        return self._read(reports.weaver_status, self._weaver.active_workers(), self._weaver.last_event)

    def retry_failed(self) -> int:
        """Queue the jobs that have failed for another round of attempts, and return their number."""
        retried = self._write(jobs.retry_failed)
        self._weaver.wake()
        return retried

    def stats(self) -> reports.Stats:
        """Report how much the database holds, as plain types."""
        return self._read(reports.stats, self._path)

    def close(self) -> None:
        """Stop the workers after the batches that run, and close the file; what is queued is kept. Idempotent."""
        self._stop()
        self._weaver.join(_CLOSE_S)
        self._connections.close()
        self._models.close()

    def __repr__(self) -> str:
        return f"<EmbeddedDB {excerpt(self._path)}>"

    def _read(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._connections.read() as tx:
            return function(tx, *arguments)

    def _write(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._connections.write() as tx:
            return function(tx, *arguments)

    def _own(self, node: Node) -> Node:
        """Return a node as what its type makes of it."""
        if node.type != CHAT:
            return node
        return Chat(node.id, node.type, node.created_at, node.properties, self)

    def _put(
        self,
        tx: Transaction,
        node_id: str,
        vector: NDArray[np.float32],
        model: ModelIdentity | str | None,
        *,
        replace: bool,
    ) -> StoredEmbedding:
        key = nodes.key_of(tx, node_id)
        if not replace and embeddings.find_embedding(tx, node_id) is not None:
            raise InvalidRecordError(f"the node {excerpt(node_id)} has a vector already: use update_embedding")
        if model is None:
            model = embeddings.find_model(tx) or self._models.given_identity() or "unnamed"
        if isinstance(model, str):
            model = ModelIdentity(parse_name("model", model), "", vector.size, "")
        if not isinstance(model, ModelIdentity):
            raise InvalidRecordError(f"model must be a ModelIdentity, a name or None, found {excerpt(model)}")
        created_at = embeddings.put_embedding(tx, key, vector, model)
        jobs.cancel(tx, key, "embedding")
        vector.flags.writeable = False
        return StoredEmbedding(node_id, vector, model, created_at)

    def _query_vector(self, parsed: ParsedQuery) -> tuple[NDArray[np.float32], ModelIdentity | None] | None:
        """Return the query's vector, and the model of one that is computed; None without a semantic part."""
        if parsed.semantic is None:
            return None
        if parsed.semantic.text is None:
            return parsed.semantic.vector, None
        # Without any vector there is nothing to compare with, and no model is loaded for it.
        if self._read(embeddings.find_model) is None:
            return None
        return self._models.embed_query(parsed.semantic.text), identity(self._models.embedder())


class Chat(Node):
    """A chat, to which messages are added."""

    def __init__(
        self,
        id: str,
        type: str,
        created_at: float,
        properties: dict[str, Any],
        db: EmbeddedDB,  # noqa: A002
    ) -> None:
        super().__init__(id, type, created_at, properties)
        object.__setattr__(self, "_db", db)  # the class is frozen

    def add_message(
        self, sender: str | None = None, content: str | None = None, role: str | None = None, **properties: Any
    ) -> Node:
        """Create a message in this chat; see `EmbeddedDB.create_message`."""
        db: EmbeddedDB = vars(self)["_db"]
        return db.create_message(chat_id=self.id, content=content, sender=sender, role=role, **properties)  # type: ignore[arg-type]


def _check_model(stored: ModelIdentity | None, asked: tuple[NDArray[np.float32], ModelIdentity | None]) -> None:
    """Refuse a query whose vector is another model's than the database's."""
    vector, model = asked
    if stored is None:
        return
    if model is not None and model != stored:
        raise ModelMismatchError(
            f"the database holds vectors of {stored}, and the query's is of {model}: open the database with "
            f"embedder={stored.name!r}"
        )
    if vector.size != stored.dimension:
        raise InvalidQueryError(f"the database holds vectors of {stored}, found one of {vector.size} values")


def _parse_path(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise InvalidRecordError(f"path must be a string or a path, found {excerpt(path)}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InvalidRecordError(f"path must name a file, found {excerpt(text)}")
    if "://" in text:
        raise InvalidRecordError(f"path must name a file, found {excerpt(text)}: there is no other engine than SQLite")
    return text if text == MEMORY else os.path.abspath(text)
