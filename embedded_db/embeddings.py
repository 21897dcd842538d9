"""Vectors in their table, and the one model that all of them come from."""

from __future__ import annotations

import time
from dataclasses import asdict, astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db.engine import Transaction, Vectors
from embedded_db.errors import InvalidRecordError, ModelMismatchError
from embedded_db.identities import agree, canonical_name, is_bare
from embedded_db.records import ModelIdentity, StoredEmbedding
from embedded_db.woven import vector_removed, vectors_changed

# The type of the stored bytes, whatever the machine's own is.
STORED = np.dtype("<f4")


def find_model(tx: Transaction, state: str = "active") -> ModelIdentity | None:
    """Return the model of the database's vectors, or None before the first; that of another state on demand."""
    row = tx.row("SELECT name, revision, dimension, prompt FROM model WHERE state = :state", state=state)
    return None if row is None else _identity(row)


def model_key(tx: Transaction, state: str = "active") -> int | None:
    """Return the key of the model of a state, or None."""
    key: int | None = tx.value("SELECT key FROM model WHERE state = :state", state=state)
    return key


def check_model(tx: Transaction, model: ModelIdentity) -> None:
    """Refuse vectors of a model while there are those of another.

    Raises:
        ModelMismatchError: there are.
    """
    stored = find_model(tx)
    if stored is None or agree(stored, model):
        return
    if tx.value("SELECT 1 FROM embedding WHERE model_key = :key LIMIT 1", key=model_key(tx)) is not None:
        raise ModelMismatchError(
            f"the database holds vectors of {stored}, found one of {model}: vectors of different models cannot be "
            "compared; open the database with the model that it has, or change it with reembed"
        )


def set_model(tx: Transaction, model: ModelIdentity) -> int:
    """Note the model that vectors come from, unless there are vectors of another one, and return its key.

    Raises:
        ModelMismatchError: there are.
    """
    row = tx.row("SELECT key, name, revision, dimension, prompt FROM model WHERE state = 'active'")
    if row is None:
        return insert_model(tx, model, "active")
    key: int = row[0]
    if row[1:] == astuple(model):
        return key
    check_model(tx, model)
    if model.dimension != row[3]:  # an index on the vectors is of one model and dimension
        tx.run("DELETE FROM model WHERE key = :key", key=key)
        return insert_model(tx, model, "active")
    if not is_bare(model) or not agree(_identity(row[1:]), model):
        tx.run(
            "UPDATE model SET name = :name, revision = :revision, dimension = :dimension, prompt = :prompt"
            " WHERE key = :key",
            key=key,
            **asdict(model),
        )
    return key


def insert_model(tx: Transaction, model: ModelIdentity, state: str) -> int:
    """Note a model in a state, and return its key."""
    key: int = tx.value(
        "INSERT INTO model (name, revision, dimension, prompt, state)"
        " VALUES (:name, :revision, :dimension, :prompt, :state) RETURNING key",
        state=state,
        **asdict(model),
    )
    return key


def put_embeddings(tx: Transaction, vectors: Vectors, model: ModelIdentity) -> float:
    """Store the vectors of nodes in place of their old ones, and return the time.

    Raises:
        InvalidRecordError: a vector has another length than the model's.
        ModelMismatchError: the vectors of the database come from another model.
    """
    for vector in vectors.values():
        if vector.size != model.dimension:
            raise InvalidRecordError(f"vectors of {model} have {model.dimension} values, found {vector.size}")
    now = store(tx, set_model(tx, model), vectors)
    vectors_changed(tx, list(vectors))
    return now


def store(tx: Transaction, of_model: int, vectors: Vectors) -> float:
    """Write the vectors of nodes and a model in place of old ones, and return the time."""
    now = time.time()
    tx.run_many(
        "INSERT INTO embedding (node_key, model_key, vector, created_at) VALUES (:key, :model, :vector, :now)"
        " ON CONFLICT (model_key, node_key) DO UPDATE SET vector = excluded.vector, created_at = excluded.created_at",
        [
            {"key": key, "model": of_model, "vector": vector.astype(STORED).tobytes(), "now": now}
            for key, vector in vectors.items()
        ],
    )
    tx.vectors_written(of_model, vectors)
    return now


def find_embedding(tx: Transaction, node_id: str) -> StoredEmbedding | None:
    """Return the vector of a node, or None."""
    row = tx.row(
        "SELECT e.vector, e.created_at FROM node n JOIN embedding e ON e.node_key = n.key AND e.model_key = :model"
        " WHERE n.id = :id",
        id=node_id,
        model=model_key(tx),
    )
    model = find_model(tx)
    if row is None or model is None:
        return None
    return StoredEmbedding(node_id, read_vector(row[0]), model, row[1])


def vector_of(tx: Transaction, model: int | None, key: int) -> NDArray[np.float32] | None:
    """Return the vector of a node and a model, read-only, or None."""
    stored = tx.value("SELECT vector FROM embedding WHERE model_key = :model AND node_key = :key", model=model, key=key)
    return None if stored is None else read_vector(stored)


def with_vector(tx: Transaction, keys: list[int]) -> set[int]:
    """Return those of some nodes that have a vector."""
    rows = tx.rows(
        f"SELECT node_key FROM embedding WHERE model_key = :model AND node_key IN ({tx.each('keys')})",
        model=model_key(tx),
        keys=keys,
    )
    return {key for (key,) in rows}


def delete_embedding(tx: Transaction, key: int) -> bool:
    """Delete the vector of a node, also the one that is to replace it, and return whether it had one."""
    vector_removed(tx, key)
    return bool(tx.run("DELETE FROM embedding WHERE node_key = :key", key=key))


def read_vector(stored: Any) -> NDArray[np.float32]:
    """Return stored bytes as a vector, read-only."""
    return np.frombuffer(stored, STORED)


def _identity(row: tuple[Any, ...]) -> ModelIdentity:
    """Return the identity of stored columns; version 1 kept the name that a model was asked for by."""
    return ModelIdentity(canonical_name(row[0]), *row[1:])
