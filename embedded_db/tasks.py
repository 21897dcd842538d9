"""The results of jobs: computed by the models, outside of any transaction, and written in one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.entities.entity import Entity
from embedded_db import changes, embeddings, links, nodes, summaries
from embedded_db.checks import new_id, parse_vector
from embedded_db.edges import NewEdge, add_edges
from embedded_db.engine import Connections, Transaction
from embedded_db.identities import identity
from embedded_db.jobs import Job, JobKind
from embedded_db.models import Models
from embedded_db.records import ENTITY, MENTIONS, ModelIdentity, Node
from embedded_db.summaries import Draft

_Result = TypeVar("_Result")

# Writes the results of those jobs of a batch that were not lost.
Write = Callable[[Transaction, Sequence[Job]], object]


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

    def compute(self, kind: JobKind, claimed: Sequence[Job]) -> Write:
        """Return a function that writes the results in the transaction that removes the jobs."""
        if kind == "embedding":
            vectors, model = self._models.embed_documents([job.content for job in claimed])
            parsed = [parse_vector(vector) for vector in vectors]
            return partial(_write_vectors, found=_by_job(claimed, parsed), model=model)
        if kind == "entities":
            entities = self._models.extractor().extract_batch([job.content for job in claimed])
            return partial(_write_mentions, found=_by_job(claimed, entities))
        if kind == "links":
            with self._connections.read() as tx:
                seen = changes.last(tx)
                nearest = links.find_links(tx, self._connections.ranking, claimed)
            return partial(_write_links, found=_by_job(claimed, nearest), seen=seen)
        return partial(_write_summaries, found=_by_job(claimed, [self._summarize(job) for job in claimed]))

    def _summarize(self, job: Job) -> tuple[Draft, str]:
        with self._connections.read() as tx:
            draft = summaries.find_draft(tx, job)
        return draft, self._models.summarizer().summarize(draft.records()) if draft.messages else ""


def _by_job(claimed: Sequence[Job], results: Sequence[_Result]) -> dict[int, _Result]:
    return {job.key: result for job, result in zip(claimed, results, strict=True)}


def _write_vectors(
    tx: Transaction, done: Sequence[Job], found: dict[int, NDArray[np.float32]], model: ModelIdentity
) -> None:
    embeddings.put_embeddings(tx, {job.node_key: found[job.key] for job in done}, model)


def _write_links(tx: Transaction, done: Sequence[Job], found: dict[int, links.Nearest], seen: int) -> None:
    for job in done:
        links.write_links(tx, job, found[job.key], seen)


def _write_summaries(tx: Transaction, done: Sequence[Job], found: dict[int, tuple[Draft, str]]) -> None:
    for job in done:
        summaries.write_summary(tx, job, *found[job.key])


def _write_mentions(tx: Transaction, done: Sequence[Job], found: dict[int, list[Entity]]) -> None:
    mentions = [(job.node_key, entity) for job in done for entity in found[job.key]]
    keys = _entity_keys(tx, dict.fromkeys((entity.text, entity.label) for _, entity in mentions))
    new = [
        NewEdge(key, keys[entity.text, entity.label], MENTIONS, {"start": entity.start, "end": entity.end})
        for key, entity in mentions
    ]
    add_edges(tx, new, woven=True)


def _entity_keys(tx: Transaction, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the nodes of entities by their labels and types; one is made for the first mention."""
    label, kind = (tx.string_property("n.properties", name) for name in ("label", "entity_type"))
    rows = tx.rows(
        f"SELECT n.key, {label}, {kind} FROM node n WHERE n.type = 'Entity' AND {label} IN ({tx.each_text('labels')})"
        f" AND {tx.is_string('n.properties', 'label')} AND {tx.is_string('n.properties', 'entity_type')}"
        " ORDER BY n.key DESC",  # so that the oldest of equal ones is taken
        labels=sorted({text for text, _ in wanted}),
    )
    keys = {(text, of_type): key for key, text, of_type in rows}
    new = {
        name: Node(new_id(), ENTITY, time.time(), {"label": name[0], "entity_type": name[1]})
        for name in wanted
        if name not in keys
    }
    made = nodes.insert_nodes(tx, list(new.values()), is_woven=True)
    return keys | {name: made[node.id] for name, node in new.items()}
