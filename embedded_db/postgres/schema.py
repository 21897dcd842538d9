"""The schema by versions. A released version is never edited: a change is another script at the end."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

from embedded_db.errors import DatabaseFileError

# All tables are in a schema of their own, beside those of any other program.
SCHEMA = "akidb"
# Those that grow.
TABLES = ("node", "edge", "embedding", "embedding_change", "unit_vector", "unsummarised", "job", "node_text")
# "akdb": the lock of the transactions that write.
WRITER_LOCK = 0x616B6462

# Strings are compared byte by byte, as SQLite does, whatever the database's collation is.
_VERSION_1 = """
CREATE TABLE node (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    type text COLLATE "C" NOT NULL,
    chat_id text COLLATE "C",
    content text COLLATE "C",
    created_at double precision NOT NULL,
    properties jsonb NOT NULL,
    woven smallint NOT NULL DEFAULT 0  -- 1: made by the weaver, and removed with the last edge
);
CREATE INDEX node_type ON node (type);
CREATE INDEX node_chat ON node (chat_id) WHERE chat_id IS NOT NULL;
-- A hash, since labels may be longer than a page.
CREATE INDEX node_entity ON node USING hash ((properties ->> 'label')) WHERE type = 'Entity';

CREATE TABLE edge (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    from_key bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    to_key bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    type text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    properties jsonb NOT NULL,
    woven smallint NOT NULL DEFAULT 0
);
CREATE INDEX edge_from ON edge (from_key, type, to_key);
CREATE INDEX edge_to ON edge (to_key, type, from_key);

-- Models whose vectors are kept: those of the active one answer, those of the next are being computed by `reembed`, and
-- those of a retired one are about to be deleted.
CREATE TABLE model (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    revision text NOT NULL,
    dimension integer NOT NULL,
    prompt text NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'next', 'retired'))
);
CREATE UNIQUE INDEX model_state ON model (state) WHERE state IN ('active', 'next');

CREATE TABLE embedding (
    node_key bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    model_key bigint NOT NULL REFERENCES model ON DELETE CASCADE,
    vector bytea NOT NULL,  -- little-endian float32
    created_at double precision NOT NULL,
    PRIMARY KEY (model_key, node_key)
);
CREATE INDEX embedding_node ON embedding (node_key);

-- The same vectors at length 1, which pgvector compares; in the row as long as there is room, for a scan of all.
CREATE TABLE unit_vector (
    node_key bigint NOT NULL,
    model_key bigint NOT NULL,
    unit vector NOT NULL,
    PRIMARY KEY (model_key, node_key),
    FOREIGN KEY (model_key, node_key) REFERENCES embedding ON DELETE CASCADE
);
ALTER TABLE unit_vector ALTER COLUMN unit SET STORAGE MAIN;

-- A list of the vectors of the active model that changed, in order.
CREATE TABLE embedding_change (
    change bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_key bigint NOT NULL UNIQUE
);
-- It names the schema, since others than this package may delete a node, too.
CREATE FUNCTION note_embedding_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed akidb.embedding := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF EXISTS (SELECT 1 FROM akidb.model WHERE key = changed.model_key AND state = 'active') THEN
        DELETE FROM akidb.embedding_change WHERE node_key = changed.node_key;
        INSERT INTO akidb.embedding_change (node_key) VALUES (changed.node_key);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER embedding_changed AFTER INSERT OR UPDATE OR DELETE ON embedding
FOR EACH ROW EXECUTE FUNCTION note_embedding_change();

-- Messages with text that no summary covers yet; 20 of a chat make one.
CREATE TABLE unsummarised (
    node_key bigint PRIMARY KEY REFERENCES node ON DELETE CASCADE,
    chat_key bigint NOT NULL REFERENCES node ON DELETE CASCADE
);
CREATE INDEX unsummarised_chat ON unsummarised (chat_key, node_key);

-- The outbox. Jobs of the kind 'summary' are of a chat that needs one, or of a summary that is to be written anew;
-- the others are of a message.
CREATE TABLE job (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_key bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('embedding', 'entities', 'links', 'summary')),
    size bigint NOT NULL DEFAULT 0,  -- characters of the text, which bound a claim
    failed smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,  -- counted by the claim, so those that killed their process count, too
    due double precision NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    leased_until double precision NOT NULL DEFAULT 0,
    error text NOT NULL DEFAULT '',
    UNIQUE (node_key, kind)
);
CREATE INDEX job_open ON job (kind, failed, key);

CREATE TABLE node_text (
    node_key bigint PRIMARY KEY REFERENCES node ON DELETE CASCADE,
    words tsvector NOT NULL
);
CREATE INDEX node_text_words ON node_text USING gin (words);
"""

MIGRATIONS = (_VERSION_1,)

_EXTENSION = "vector"
_ENABLE = "install pgvector on the server, and let a superuser run CREATE EXTENSION vector in this database"


def prepare(connection: psycopg.Connection[Any], path: str) -> None:
    """Create the schema in a new database, or bring an older one to this version, in one transaction.

    Raises:
        DatabaseFileError: the database cannot hold it, has tables of another program there, or is of a newer version.
    """
    if check_version(connection, path) == len(MIGRATIONS):
        return
    encoding = _value(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise DatabaseFileError(f"{path} has the encoding {encoding}, and UTF8 is needed: create another database")
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # see `PostgresConnections.write`
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [WRITER_LOCK])
        # Again, since another process may have done it meanwhile.
        version = check_version(connection, path)
        if not _value(connection, "SELECT count(*) FROM pg_extension WHERE extname = %s", _EXTENSION):
            _create_extension(connection, path)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        set_search_path(connection)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.schema_version (version integer NOT NULL)")
        for script in MIGRATIONS[version:]:
            connection.execute(script)
        connection.execute("DELETE FROM schema_version")
        connection.execute("INSERT INTO schema_version VALUES (%s)", [len(MIGRATIONS)])


def check_version(connection: psycopg.Connection[Any], path: str) -> int:
    """Return the version of a database's schema; 0 where there is none.

    Raises:
        DatabaseFileError: it is another program's, or of a newer version.
    """
    if _value(connection, f"SELECT to_regclass('{SCHEMA}.schema_version')") is None:
        tables = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(%s)"
        if _value(connection, tables, SCHEMA):
            raise DatabaseFileError(
                f"{path} has a schema {SCHEMA} of another program: give the name of another database"
            )
        return 0
    version: int = _value(connection, f"SELECT version FROM {SCHEMA}.schema_version") or 0
    if version > len(MIGRATIONS):
        raise DatabaseFileError(
            f"{path} has version {version} of the schema, and this package knows versions up to {len(MIGRATIONS)}: "
            "update akidb-mlx"
        )
    return version


def set_search_path(connection: psycopg.Connection[Any]) -> None:
    """Look for tables in the schema of this package, and for pgvector's types where they are."""
    connection.execute(
        "SELECT set_config('search_path', concat(%s::text, ', ', coalesce((SELECT quote_ident(n.nspname)"
        " FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'), 'public')),"
        " FALSE)",
        [SCHEMA],
    )


def _create_extension(connection: psycopg.Connection[Any], path: str) -> None:
    try:
        connection.execute(f"CREATE EXTENSION IF NOT EXISTS {_EXTENSION}")
    except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
        raise DatabaseFileError(f"{path} has no pgvector: {_ENABLE}") from error
    except errors.InsufficientPrivilege as error:
        raise DatabaseFileError(f"{path} has no pgvector, which this role cannot enable: {_ENABLE}") from error


def _value(connection: psycopg.Connection[Any], sql: str, *values: Any) -> Any:
    row = connection.execute(sql, values or None).fetchone()
    return None if row is None else row[0]
