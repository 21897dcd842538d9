"""The results of jobs: computed by the models, outside of any transaction, and written in one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.entities.entity import Entity
from embedded_db import embeddings, links, nodes, summaries
from embedded_db.checks import new_id, parse_vector
from embedded_db.edges import add_edge
from embedded_db.engine import Connections, Transaction
from embedded_db.identities import identity
from embedded_db.jobs import Job, JobKind
from embedded_db.models import Models
from embedded_db.records import ENTITY, MENTIONS, ModelIdentity, Node

# Writes the result of one job.
Write = Callable[[Transaction, Job], object]


class Tasks:
    """Prepares and computes what the jobs of each kind ask for."""

    def __init__(self, connections: Connections, models: Models) -> None:
        """Keep what is asked."""
        self._connections = connections
        self._models = models

    def prepare(self, kind: JobKind) -> None:
        """Load the model of a kind of jobs, which takes longer than a lease.

        Raises:
            AkidbMlxError: it cannot be loaded, or its vectors are not those that the database holds.
        """
        if kind == "embedding":
            model = identity(self._models.embedder())
            with self._connections.read() as tx:
                embeddings.check_model(tx, model)
        elif kind == "entities":
            self._models.extractor()
        elif kind == "summary":
            self._models.summarizer()

    def compute(self, kind: JobKind, claimed: Sequence[Job]) -> list[Write]:
        """Return a function for each job that writes its result in the transaction that removes it."""
        if kind == "embedding":
            vectors, model = self._models.embed_documents([job.content for job in claimed])
            return [partial(_write_vector, vector=parse_vector(vector), model=model) for vector in vectors]
        if kind == "entities":
            found = self._models.extractor().extract_batch([job.content for job in claimed])
            return [partial(_write_mentions, found=entities) for entities in found]
        if kind == "links":
            with self._connections.read() as tx:
                seen = links.last_change(tx)
                nearest = links.find_links(tx, self._connections.ranking, claimed)
            return [partial(links.write_links, nearest=one, seen=seen) for one in nearest]
        return [self._summarize(job) for job in claimed]

    def _summarize(self, job: Job) -> Write:
        with self._connections.read() as tx:
            draft = summaries.find_draft(tx, job)
        text = self._models.summarizer().summarize(draft.records()) if draft.messages else ""
        return partial(summaries.write_summary, draft=draft, text=text)


def _write_vector(tx: Transaction, job: Job, vector: NDArray[np.float32], model: ModelIdentity) -> None:
    embeddings.put_embedding(tx, job.node_key, vector, model)


def _write_mentions(tx: Transaction, job: Job, found: list[Entity]) -> None:
    for entity in found:
        place = {"start": entity.start, "end": entity.end}
        add_edge(tx, job.node_key, _entity_key(tx, entity.text, entity.label), MENTIONS, place, woven=True)


def _entity_key(tx: Transaction, label: str, entity_type: str) -> int:
    """Return the node of an entity, which is made for its first mention."""
    found: int | None = tx.value(
        f"SELECT n.key FROM node n WHERE n.type = 'Entity' AND {tx.string_property('n.properties', 'label')} = :label"
        f" AND {tx.string_property('n.properties', 'entity_type')} = :entity_type"
        f" AND {tx.is_string('n.properties', 'label')} AND {tx.is_string('n.properties', 'entity_type')}"
        " ORDER BY n.key LIMIT 1",
        label=label,
        entity_type=entity_type,
    )
    if found is not None:
        return found
    node = Node(new_id(), ENTITY, time.time(), {"label": label, "entity_type": entity_type})
    return nodes.insert_node(tx, node, is_woven=True)
