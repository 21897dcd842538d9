"""The places of databases, and the engine that each asks for."""

from __future__ import annotations

import os
from pathlib import Path as FilePath

from akidb_mlx.errors import ConfigurationError
from embedded_db.engine import Connections
from embedded_db.errors import InvalidRecordError, excerpt
from embedded_db.sqlite.connection import MEMORY, SqliteConnections

# The URLs of servers.
SERVERS = ("postgresql://", "postgres://")


def parse_location(path: str | os.PathLike[str]) -> str:
    """Return the URL of a server, the absolute path of a file, or ":memory:"."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise InvalidRecordError(f"path must be a string or a path, found {excerpt(path)}")
    text = os.fspath(path)
    if text.startswith(SERVERS):
        return text  # which is in no message, since it may hold a password
    if not text or "\0" in text:
        raise InvalidRecordError(f"path must name a file, found {excerpt(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRecordError(f"path must be text in UTF-8, as SQLite takes it, found {excerpt(text)}") from error
    if "://" in text:
        raise InvalidRecordError(
            f"path must be a file or postgresql://..., found {excerpt(text.split('://')[0])}://..."
        )
    return text if text == MEMORY else str(FilePath(text).absolute())


def connect(path: str, lock_timeout: float) -> Connections:
    """Open a database with the engine that its path asks for."""
    if not path.startswith(SERVERS):
        return SqliteConnections(path, lock_timeout)
    try:
        from embedded_db.postgres.connection import PostgresConnections
    except ImportError as error:
        raise ConfigurationError(
            f"PostgreSQL needs psycopg, which cannot be imported ({error}): run `pip install 'akidb-mlx[postgres]'`"
        ) from error
    return PostgresConnections(path, lock_timeout)
