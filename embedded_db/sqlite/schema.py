"""The schema by versions. A released version is never edited: a change is another script at the end."""

from __future__ import annotations

import apsw

from embedded_db.errors import DatabaseFileError

# "akdb", which marks a file as a database of this package.
APPLICATION_ID = 0x616B6462

_VERSION_1 = """
-- Keys are never used twice, so the key of a removed node can stand in a list of changes.
CREATE TABLE node (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    chat_id TEXT,
    content TEXT,
    created_at REAL NOT NULL,
    properties TEXT NOT NULL,
    woven INTEGER NOT NULL DEFAULT 0  -- 1: made by the weaver, and removed with the last edge
) STRICT;
CREATE INDEX node_type ON node (type);
CREATE INDEX node_chat ON node (chat_id) WHERE chat_id IS NOT NULL;
CREATE INDEX node_entity ON node (json_extract(properties, '$.label'), json_extract(properties, '$.entity_type'))
    WHERE type = 'Entity';

CREATE TABLE edge (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    from_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE,
    to_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE,
    type TEXT NOT NULL,
    created_at REAL NOT NULL,
    properties TEXT NOT NULL,
    woven INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX edge_from ON edge (from_key, type, to_key);
CREATE INDEX edge_to ON edge (to_key, type, from_key);

-- The one model that the vectors come from.
CREATE TABLE model (
    key INTEGER PRIMARY KEY CHECK (key = 1),
    name TEXT NOT NULL,
    revision TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    prompt TEXT NOT NULL
) STRICT;

CREATE TABLE embedding (
    node_key INTEGER PRIMARY KEY REFERENCES node (key) ON DELETE CASCADE,
    vector BLOB NOT NULL,  -- little-endian float32
    created_at REAL NOT NULL
) STRICT;

-- A list of the vectors that changed, in order, which the matrices of all processes follow.
CREATE TABLE embedding_change (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    node_key INTEGER NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER embedding_inserted AFTER INSERT ON embedding BEGIN
    DELETE FROM embedding_change WHERE node_key = new.node_key;
    INSERT INTO embedding_change (node_key) VALUES (new.node_key);
END;
CREATE TRIGGER embedding_updated AFTER UPDATE ON embedding BEGIN
    DELETE FROM embedding_change WHERE node_key = new.node_key;
    INSERT INTO embedding_change (node_key) VALUES (new.node_key);
END;
CREATE TRIGGER embedding_deleted AFTER DELETE ON embedding BEGIN
    DELETE FROM embedding_change WHERE node_key = old.node_key;
    INSERT INTO embedding_change (node_key) VALUES (old.node_key);
END;

-- The outbox. A job is written with its message and removed with its result, each in one transaction.
CREATE TABLE job (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    node_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('embedding', 'entities')),
    failed INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    leased_until REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (node_key, kind)
) STRICT;
CREATE INDEX job_open ON job (kind, failed, key);

CREATE VIRTUAL TABLE node_text USING fts5 (
    content, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER node_inserted AFTER INSERT ON node WHEN new.content IS NOT NULL BEGIN
    INSERT INTO node_text (rowid, content) VALUES (new.key, new.content);
END;
CREATE TRIGGER node_updated AFTER UPDATE OF content ON node BEGIN
    DELETE FROM node_text WHERE rowid = old.key;
    INSERT INTO node_text (rowid, content) SELECT new.key, new.content WHERE new.content IS NOT NULL;
END;
CREATE TRIGGER node_deleted AFTER DELETE ON node WHEN old.content IS NOT NULL BEGIN
    DELETE FROM node_text WHERE rowid = old.key;
END;
"""

_VERSION_2 = """
-- Models whose vectors are kept: those of the active one answer, those of the next are being computed by `reembed`, and
-- those of a retired one are about to be deleted.
CREATE TABLE model_2 (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    revision TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'next', 'retired'))
) STRICT;
INSERT INTO model_2 SELECT key, name, revision, dimension, prompt, 'active' FROM model;
DROP TABLE model;
ALTER TABLE model_2 RENAME TO model;
CREATE UNIQUE INDEX model_state ON model (state) WHERE state IN ('active', 'next');

CREATE TABLE embedding_2 (
    node_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE,
    model_key INTEGER NOT NULL REFERENCES model (key) ON DELETE CASCADE,
    vector BLOB NOT NULL,  -- little-endian float32
    created_at REAL NOT NULL,
    PRIMARY KEY (model_key, node_key)
) STRICT;
INSERT INTO embedding_2 SELECT node_key, 1, vector, created_at FROM embedding ORDER BY node_key;
DROP TABLE embedding;
ALTER TABLE embedding_2 RENAME TO embedding;
CREATE INDEX embedding_node ON embedding (node_key);

-- The list of changes is of the active model's vectors only.
CREATE TRIGGER embedding_inserted AFTER INSERT ON embedding
WHEN (SELECT state FROM model WHERE key = new.model_key) = 'active' BEGIN
    DELETE FROM embedding_change WHERE node_key = new.node_key;
    INSERT INTO embedding_change (node_key) VALUES (new.node_key);
END;
CREATE TRIGGER embedding_updated AFTER UPDATE ON embedding
WHEN (SELECT state FROM model WHERE key = new.model_key) = 'active' BEGIN
    DELETE FROM embedding_change WHERE node_key = new.node_key;
    INSERT INTO embedding_change (node_key) VALUES (new.node_key);
END;
CREATE TRIGGER embedding_deleted AFTER DELETE ON embedding
WHEN (SELECT state FROM model WHERE key = old.model_key) = 'active' BEGIN
    DELETE FROM embedding_change WHERE node_key = old.node_key;
    INSERT INTO embedding_change (node_key) VALUES (old.node_key);
END;

-- Messages with text that no summary covers yet; 20 of a chat make one.
CREATE TABLE unsummarised (
    node_key INTEGER PRIMARY KEY REFERENCES node (key) ON DELETE CASCADE,
    chat_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE
) STRICT;
CREATE INDEX unsummarised_chat ON unsummarised (chat_key, node_key);
INSERT INTO unsummarised SELECT n.key, c.key FROM node n JOIN node c ON c.id = n.chat_id AND c.type = 'Chat'
    WHERE n.type = 'Message' AND trim(n.content, char(9, 10, 11, 12, 13, 32)) <> '';

-- The outbox. Jobs of the kind 'summary' are of a chat that needs one, or of a summary that is to be written anew;
-- the others are of a message.
CREATE TABLE job_2 (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    node_key INTEGER NOT NULL REFERENCES node (key) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('embedding', 'entities', 'links', 'summary')),
    size INTEGER NOT NULL DEFAULT 0,  -- characters of the text, which bound a claim
    failed INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,  -- counted by the claim, so those that killed their process count, too
    due REAL NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    leased_until REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (node_key, kind)
) STRICT;
INSERT INTO job_2 SELECT j.key, node_key, kind, coalesce(length(n.content), 0), failed, attempts, due, worker,
    leased_until, error FROM job j JOIN node n ON n.key = j.node_key ORDER BY j.key;
DROP TABLE job;
ALTER TABLE job_2 RENAME TO job;
CREATE INDEX job_open ON job (kind, failed, key);
INSERT INTO job (node_key, kind) SELECT e.node_key, 'links' FROM embedding e JOIN node n ON n.key = e.node_key
    WHERE n.type = 'Message' ORDER BY e.node_key;
INSERT INTO job (node_key, kind)
    SELECT chat_key, 'summary' FROM unsummarised GROUP BY chat_key HAVING count(*) >= 20 ORDER BY chat_key;
"""

MIGRATIONS = (_VERSION_1, _VERSION_2)


def migrate(connection: apsw.Connection, path: str) -> None:
    """Create the schema in an empty file, or bring an older one to this version, in one transaction.

    Raises:
        DatabaseFileError: the file is another program's, or of a newer version.
    """
    if check_version(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, since another process may have done it meanwhile.
        for script in MIGRATIONS[check_version(connection, path) :]:
            connection.execute(script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it, and are the ones to raise
            connection.execute("ROLLBACK")
        raise


def check_version(connection: apsw.Connection, path: str) -> int:
    """Return the version of a file's schema; 0 of an empty file.

    Raises:
        DatabaseFileError: the file is another program's, or of a newer version.
    """
    version = int(connection.pragma("user_version"))
    application = int(connection.pragma("application_id"))
    if application != APPLICATION_ID and (version or _has_tables(connection)):
        raise DatabaseFileError(f"{path} is the SQLite database of another program: give the path of a new file")
    if version > len(MIGRATIONS):
        raise DatabaseFileError(
            f"{path} has version {version} of the schema, and this package knows versions up to {len(MIGRATIONS)}: "
            "update akidb-mlx"
        )
    return version


def _has_tables(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").get)
