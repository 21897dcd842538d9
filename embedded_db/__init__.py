"""An embedded database of messages, which are enriched by this project's models and found by one query.

    from embedded_db import EmbeddedDB

    with EmbeddedDB("chats.db") as db:
        chat = db.create_chat(title="Project", topic="Rust")
        message = chat.add_message(sender="Alice", content="Alice met Bob in Paris", role="user")
        db.wait_until_enriched(message.id)
        results = db.query(semantic_query={"text": "meetings"})

The extra `db` is needed (apsw, which brings its own SQLite). These names and `embedded_db.errors` are public; the other
modules may change in any release.
"""

from akidb_mlx.errors import ConfigurationError

try:
    import apsw  # noqa: F401
except ImportError as _error:
    raise ConfigurationError(
        f"the database needs apsw, which cannot be imported ({_error}): run `pip install 'akidb-mlx[db]'`"
    ) from _error

from embedded_db.activity import ActivityLevel
from embedded_db.database import EmbeddedDB
from embedded_db.errors import (
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseConnectionError,
    DatabaseError,
    DatabaseFileError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    EdgeNotFoundError,
    EnrichmentError,
    InvalidQueryError,
    InvalidRecordError,
    ModelMismatchError,
    NodeNotFoundError,
)
from embedded_db.graph_store import Chat
from embedded_db.query import ConvergedQuery, GraphFilter, SemanticQuery, StructuralFilter
from embedded_db.records import (
    Edge,
    MentionedEntity,
    ModelIdentity,
    Node,
    Path,
    SearchResult,
    StoredEmbedding,
)
from embedded_db.reembed import ReembedReport
from embedded_db.reports import Stats, WeaverStatus

__all__ = [
    "ActivityLevel",
    "Chat",
    "ConvergedQuery",
    "DatabaseBusyError",
    "DatabaseClosedError",
    "DatabaseConnectionError",
    "DatabaseError",
    "DatabaseFileError",
    "DatabaseFullError",
    "DatabaseReadOnlyError",
    "Edge",
    "EdgeNotFoundError",
    "EmbeddedDB",
    "EnrichmentError",
    "GraphFilter",
    "InvalidQueryError",
    "InvalidRecordError",
    "MentionedEntity",
    "ModelIdentity",
    "ModelMismatchError",
    "Node",
    "NodeNotFoundError",
    "Path",
    "ReembedReport",
    "SearchResult",
    "SemanticQuery",
    "Stats",
    "StoredEmbedding",
    "StructuralFilter",
    "WeaverStatus",
]
