"""The part of the database that holds vectors."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded_db import embeddings, jobs, nodes
from embedded_db.checks import parse_integer, parse_name, parse_text, parse_vector
from embedded_db.engine import Transaction
from embedded_db.errors import InvalidRecordError, NodeNotFoundError, excerpt
from embedded_db.identities import canonical_name, named
from embedded_db.records import ModelIdentity, StoredEmbedding
from embedded_db.store import Store


class VectorStore(Store):
    """Creates, returns, changes and deletes the vectors of nodes."""

    @property
    def model(self) -> ModelIdentity | None:
        """Return the model that all vectors come from, or None before the first."""
        return self._read(embeddings.find_model)

    def create_embedding(self, node_id: str, vector: Any, model: ModelIdentity | str | None = None) -> StoredEmbedding:
        """Give a node a vector, and return it; a job that would compute one is dropped.

        Args:
            node_id: the node.
            vector: finite numbers, not all 0.
            model: where it comes from. If None, the model of the database's vectors; before the first, that of the
                embedder that the database was opened with. A name alone is taken for any revision and prompt of it.

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
        with self._writing() as tx:
            return self._put(tx, new, model, replace=False)

    def get_embedding(self, node_id: str) -> StoredEmbedding | None:
        """Return the vector of a node, or None."""
        return self._read(embeddings.find_embedding, parse_name("node_id", node_id))

    def get_embedding_for_node(self, node_id: str) -> StoredEmbedding | None:
        """Return the vector of a node, or None; the same as `get_embedding`."""
        return self.get_embedding(node_id)

    def update_embedding(self, node_id: str, vector: Any, model: ModelIdentity | str | None = None) -> StoredEmbedding:
        """Replace the vector of a node, or give it one; see `create_embedding`."""
        checked = parse_vector(vector)
        with self._writing() as tx:
            return self._put(tx, [(parse_name("node_id", node_id), checked)], model, replace=True)[0]

    def delete_embedding(self, node_id: str) -> None:
        """Delete the vector of a node; nothing is done if it has none.

        Raises:
            NodeNotFoundError: there is no such node.
        """
        with self._writing() as tx:
            embeddings.delete_embedding(tx, nodes.key_of(tx, parse_name("node_id", node_id)))

    def _put(
        self,
        tx: Transaction,
        given: list[tuple[str, NDArray[np.float32]]],
        model: ModelIdentity | str | None,
        *,
        replace: bool,
    ) -> list[StoredEmbedding]:
        keys = nodes.keys_of(tx, {node_id for node_id, _ in given})
        taken = set() if replace else embeddings.with_vector(tx, list(keys.values()))
        for node_id, _ in given:
            if node_id not in keys:
                raise NodeNotFoundError.of(node_id)
            if keys[node_id] in taken:
                raise InvalidRecordError(f"the node {excerpt(node_id)} has a vector already: use update_embedding")
            if not replace:
                taken.add(keys[node_id])
        stored: list[StoredEmbedding] = []
        # Those of another length are refused by the next round.
        for size, group in groupby(given, key=lambda one: one[1].size):
            vectors = dict(group)
            identity = self._identity(tx, model, size)
            created_at = embeddings.put_embeddings(tx, {keys[one]: vector for one, vector in vectors.items()}, identity)
            stored += [StoredEmbedding(node_id, vector, identity, created_at) for node_id, vector in vectors.items()]
        jobs.cancel(tx, list(keys.values()), ["embedding"])
        for _, vector in given:
            vector.flags.writeable = False
        return stored

    def _identity(self, tx: Transaction, model: ModelIdentity | str | None, size: int) -> ModelIdentity:
        """Return the model of vectors of a size, of what the caller said."""
        if model is None:
            model = embeddings.find_model(tx) or self._models.identity_of(size)
        if isinstance(model, str):
            model = named(parse_name("model", model), size)
        return _parse_model(model)


def _parse_model(model: object) -> ModelIdentity:
    if not isinstance(model, ModelIdentity):
        raise InvalidRecordError(f"model must be a ModelIdentity, a name or None, found {excerpt(model)}")
    return ModelIdentity(
        canonical_name(parse_name("the model's name", model.name)),
        parse_text("the model's revision", model.revision),
        parse_integer("the model's dimension", model.dimension, 1, InvalidRecordError),
        parse_text("the model's prompt", model.prompt),
    )
