"""Every error that the database raises on purpose; the tree hangs below `akidb_mlx.errors.AkidbMlxError`.

    DatabaseError
    ├── NodeNotFoundError         a node that is written to, or that a query starts at, does not exist
    ├── EdgeNotFoundError         an edge that is written to does not exist
    ├── InvalidRecordError        a node, an edge, an embedding or an argument is not usable (also a ValueError)
    ├── InvalidQueryError         a query is not usable (also a ValueError)
    ├── ModelMismatchError        vectors of different models would be compared or mixed
    ├── DatabaseFileError         the file is no database of this package, is damaged, or cannot be read or written
    │   ├── DatabaseReadOnlyError the file cannot be written
    │   └── DatabaseFullError     the disk is full
    ├── DatabaseConnectionError   the server cannot be reached, or ended the connection
    ├── DatabaseBusyError         another thread or process kept a lock for too long
    ├── DatabaseClosedError       closed, or this process was forked while a database was open
    └── EnrichmentError           the weaver gave a message up, or cannot enrich it at present

A message says what is wrong, what was found and what to do about it, on one line.
"""

from __future__ import annotations

from akidb_mlx.errors import AkidbMlxError


class DatabaseError(AkidbMlxError):
    """The root of the database's errors: catching it catches everything below."""


class NodeNotFoundError(DatabaseError):
    """There is no node of this id; nothing was changed."""

    @classmethod
    def of(cls, node_id: str) -> NodeNotFoundError:
        """Return the error for an id."""
        return cls(f"there is no node {excerpt(node_id)}: create it first, or correct the id")


class EdgeNotFoundError(DatabaseError):
    """There is no edge of this id; nothing was changed."""

    @classmethod
    def of(cls, edge_id: str) -> EdgeNotFoundError:
        """Return the error for an id."""
        return cls(f"there is no edge {excerpt(edge_id)}: create it first, or correct the id")


class InvalidRecordError(DatabaseError, ValueError):
    """A node, an edge, an embedding or an argument is not usable; nothing was changed."""


class InvalidQueryError(DatabaseError, ValueError):
    """A query is not usable; the message names the part."""


class ModelMismatchError(DatabaseError):
    """Vectors of different models cannot be compared; the message names both."""


class DatabaseFileError(DatabaseError):
    """The file is no database of this package, is damaged, is of a newer version, or cannot be read or written."""


class DatabaseReadOnlyError(DatabaseFileError):
    """The file cannot be written; nothing was changed."""


class DatabaseFullError(DatabaseFileError):
    """The disk is full; nothing was changed."""


class DatabaseConnectionError(DatabaseError):
    """The server cannot be reached, or ended the connection; a transaction that was open is undone."""


class DatabaseBusyError(DatabaseError):
    """Another thread or process kept a lock for longer than `lock_timeout`; nothing was changed."""


class DatabaseClosedError(DatabaseError):
    """The database was closed, or this process was forked while one was open, which no engine survives."""


class EnrichmentError(DatabaseError):
    """The weaver gave a message up after its last attempt, or this process's cannot enrich it; says the cause."""


def excerpt(value: object, limit: int = 80) -> str:
    """Return the beginning of a value as it may stand in a message: printable, on one line."""
    if isinstance(value, (str, bytes)):  # a repr of all of it would be as long
        shown = repr(value[:limit])
        return shown if len(value) <= limit else f"{shown}..."
    shown = repr(value) if isinstance(value, (int, float, bool, type(None))) else f"a {type(value).__name__}"
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
