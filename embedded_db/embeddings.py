"""Vectors in their table, and the one model that all of them come from."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db.engine import Transaction
from embedded_db.errors import InvalidRecordError, ModelMismatchError
from embedded_db.records import ModelIdentity, StoredEmbedding

# The type of the stored bytes, whatever the machine's own is.
STORED = np.dtype("<f4")


def find_model(tx: Transaction) -> ModelIdentity | None:
    """Return the model of the database's vectors, or None before the first."""
    row = tx.row("SELECT name, revision, dimension, prompt FROM model")
    return None if row is None else ModelIdentity(*row)


def set_model(tx: Transaction, model: ModelIdentity) -> None:
    """Note the model that vectors come from, unless there are vectors of another one.

    Raises:
        ModelMismatchError: there are.
    """
    stored = find_model(tx)
    if stored == model:
        return
    if stored is not None and tx.value("SELECT 1 FROM embedding LIMIT 1"):
        raise ModelMismatchError(
            f"the database holds vectors of {stored}, found one of {model}: vectors of different models cannot be "
            "compared; keep them in a database of their own"
        )
    tx.run(
        "INSERT INTO model (key, name, revision, dimension, prompt) VALUES (1, :name, :revision, :dimension, :prompt)"
        " ON CONFLICT (key) DO UPDATE SET name = excluded.name, revision = excluded.revision,"
        " dimension = excluded.dimension, prompt = excluded.prompt",
        name=model.name,
        revision=model.revision,
        dimension=model.dimension,
        prompt=model.prompt,
    )


def put_embedding(tx: Transaction, key: int, vector: NDArray[np.float32], model: ModelIdentity) -> float:
    """Store the vector of a node in place of its old one, and return the time.

    Raises:
        InvalidRecordError: the vector has another length than the model's.
        ModelMismatchError: the vectors of the database come from another model.
    """
    if vector.size != model.dimension:
        raise InvalidRecordError(f"vectors of {model} have {model.dimension} values, found {vector.size}")
    set_model(tx, model)
    now = time.time()
    tx.run(
        "INSERT INTO embedding (node_key, vector, created_at) VALUES (:key, :vector, :now)"
        " ON CONFLICT (node_key) DO UPDATE SET vector = excluded.vector, created_at = excluded.created_at",
        key=key,
        vector=vector.astype(STORED).tobytes(),
        now=now,
    )
    tx.vector_written(key, vector)
    return now


def find_embedding(tx: Transaction, node_id: str) -> StoredEmbedding | None:
    """Return the vector of a node, or None."""
    row = tx.row(
        "SELECT vector, e.created_at FROM node n JOIN embedding e ON e.node_key = n.key WHERE n.id = :id", id=node_id
    )
    model = find_model(tx)
    if row is None or model is None:
        return None
    return StoredEmbedding(node_id, read_vector(row[0]), model, row[1])


def delete_embedding(tx: Transaction, key: int) -> bool:
    """Delete the vector of a node, and return whether it had one."""
    return bool(tx.run("DELETE FROM embedding WHERE node_key = :key", key=key))


def read_vector(stored: Any) -> NDArray[np.float32]:
    """Return stored bytes as a vector, read-only."""
    return np.frombuffer(stored, STORED)
