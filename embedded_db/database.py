"""EmbeddedDB, the facade: messages in, enriched and searchable out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.embedder import Embedder
from akidb_mlx.runtime.finalizers import clean_up_after
from embedded_db import embeddings, graph
from embedded_db.activity import Activity
from embedded_db.checks import parse_integer, parse_name, parse_number
from embedded_db.enrichment_store import EnrichmentStore
from embedded_db.errors import (
    InvalidQueryError,
    InvalidRecordError,
    ModelMismatchError,
    excerpt,
)
from embedded_db.graph_store import GraphStore
from embedded_db.identities import agree
from embedded_db.locations import connect, parse_location
from embedded_db.models import Extractor, MessageSummarizer, Models
from embedded_db.parsing import parse_direction, parse_edge_type, parse_query
from embedded_db.query import (
    ConvergedQuery,
    Direction,
    DocumentRanker,
    GraphFilter,
    ParsedQuery,
    SemanticQuery,
    StructuralFilter,
)
from embedded_db.records import (
    ModelIdentity,
    Path,
    SearchResult,
)
from embedded_db.reranking import reranked, widen
from embedded_db.search import search
from embedded_db.tasks import Tasks
from embedded_db.vector_store import VectorStore
from embedded_db.weaver import Weaver

# Seconds that `close` waits for the batches that run.
_CLOSE_S = 10.0


class EmbeddedDB(GraphStore, VectorStore, EnrichmentStore):
    """A database of messages in one file or on a server; safe for many threads and processes at once.

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
        summarizer: MessageSummarizer | None = None,
        weaver: bool = True,
        lock_timeout: float = 5.0,
    ) -> None:
        """Open a database, which is created where there is no file.

        Args:
            path: a file, ":memory:" for one that is gone when it is closed, or "postgresql://user:password@host/name"
                for a database of a server, which needs pgvector.
            embedder: embeds messages and queries; the name of a model is loaded when it is first needed.
            extractor: finds entities, as an `EntityExtractor`; None makes one when it is first needed.
            summarizer: summarises chats, as a `Summarizer`; None makes one when it is first needed: sentences of the
                messages, chosen by `embedder`, unless the settings name a language model.
            weaver: whether to enrich messages in this process. Their jobs are kept without it, for another process.
            lock_timeout: seconds to wait for a lock that another thread or process holds.

        Raises:
            DatabaseFileError: the file is no database of this package, is of a newer version, or cannot be opened.
            DatabaseConnectionError: the server cannot be reached.
            InvalidRecordError: an argument is not usable.
        """
        location = parse_location(path)
        if not isinstance(embedder, (Embedder, str)):
            raise InvalidRecordError(f"embedder must be an Embedder or a model's name, found {excerpt(embedder)}")
        seconds = parse_number("lock_timeout", lock_timeout)
        if not 0 <= seconds <= 86400:
            raise InvalidRecordError(f"lock_timeout must be from 0 to 86400 seconds, found {seconds:g}")
        self._connections = connect(location, seconds)
        self._models = Models(embedder, extractor, summarizer)
        self._activity = Activity()
        self._weaver = Weaver(self._connections, Tasks(self._connections, self._models), self._activity)
        # Released in reverse; also when a database is dropped without being closed.
        resources = ExitStack()
        for release in (self._models.close, self._connections.close, partial(self._weaver.join, _CLOSE_S)):
            resources.callback(release)
        resources.callback(self._weaver.stop)
        self._release = resources.close
        clean_up_after(self, resources.close)
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
        rerank: DocumentRanker | None = None,
    ) -> list[SearchResult]:
        """Return the nodes that meet all parts of a query; see `ConvergedQuery` for the parts.

        Results are ordered by similarity, then time, then id; with words only, by how well these match; with words and
        meaning, by the sum of the reciprocal ranks in both; with `rerank`, by its scores.

        Raises:
            InvalidQueryError: a part is not usable, or there is none.
            NodeNotFoundError: the node that the graph part starts at does not exist.
            ModelMismatchError: the query's vector and the database's come from different models.
        """
        return self.execute_query(
            ConvergedQuery(structural_filters, graph_filter, semantic_query, text_query, limit, offset, rerank)
        )

    def execute_query(self, query: ConvergedQuery) -> list[SearchResult]:
        """Return the results of a query; see `query`."""
        parsed = parse_query(query)
        vector = self._query_vector(parsed)
        with self._reading() as tx:
            if vector is not None:
                _check_model(embeddings.find_model(tx), vector)
            found = search(tx, self._connections.ranking, widen(parsed), None if vector is None else vector[0])
        return [replace(one, node=self._own(one.node)) for one in reranked(parsed, found)]

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

    def close(self) -> None:
        """Stop the workers after the batches that run, and close the file; what is queued is kept. Idempotent."""
        self._release()

    def __repr__(self) -> str:
        return f"<EmbeddedDB {excerpt(self._connections.path)}>"

    def _query_vector(self, parsed: ParsedQuery) -> tuple[NDArray[np.float32], ModelIdentity | None] | None:
        """Return the query's vector, and the model of one that is computed; None without a semantic part."""
        if parsed.semantic is None:
            return None
        if parsed.semantic.text is None:
            return parsed.semantic.vector, None
        # Without any vector there is nothing to compare with, and no model is loaded for it.
        if self._read(embeddings.find_model) is None:
            return None
        return self._models.embed_query(parsed.semantic.text)


def _check_model(stored: ModelIdentity | None, asked: tuple[NDArray[np.float32], ModelIdentity | None]) -> None:
    """Refuse a query whose vector is another model's than the database's."""
    vector, model = asked
    if stored is None:
        return
    if model is not None and not agree(stored, model):
        raise ModelMismatchError(
            f"the database holds vectors of {stored}, and the query's is of {model}: open the database with "
            f"embedder={stored.name!r}"
        )
    if vector.size != stored.dimension:
        raise InvalidQueryError(f"the database holds vectors of {stored}, found one of {vector.size} values")
