"""The weaver: threads that take jobs from the outbox and write vectors and entities next to their messages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.entities.entity import Entity
from embedded_db import jobs
from embedded_db.checks import new_id, parse_vector
from embedded_db.edges import insert_edge
from embedded_db.embeddings import put_embedding
from embedded_db.engine import Connections, Transaction
from embedded_db.errors import DatabaseClosedError, excerpt
from embedded_db.jobs import Job, JobKind
from embedded_db.models import Models
from embedded_db.nodes import insert_node
from embedded_db.records import ENTITY, MENTIONS, Edge, ModelIdentity, Node

logger = logging.getLogger(__name__)

# A batch that fills the embedder, and is soon done.
_BATCH = 64
# Seconds after which a thread looks for jobs that another process has written.
_POLL_S = 0.5
# Writes the result of one job.
_Write = Callable[[Transaction, Job], None]


class Weaver:
    """One thread for each kind of job; several weavers, in any processes, share the work."""

    def __init__(self, connections: Connections, models: Models, lease_s: float = jobs.LEASE_S) -> None:
        """Prepare the threads; `start` starts them."""
        self._connections = connections
        self._models = models
        self._lease_s = lease_s
        self._stopping = threading.Event()
        self._wake = {kind: threading.Event() for kind in jobs.KINDS}
        self._threads = [
            threading.Thread(target=self._loop, args=(kind,), name=f"weaver-{kind}", daemon=True) for kind in jobs.KINDS
        ]
        self.last_event: str | None = None

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there are new jobs."""
        for event in self._wake.values():
            event.set()

    def stop(self) -> None:
        """Ask the threads to end after their batch; waits for nothing."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait for the threads to end, `timeout` seconds at most."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))

    def active_workers(self) -> int:
        """Return how many threads run."""
        return sum(thread.is_alive() for thread in self._threads)

    def work(self, kind: JobKind) -> bool:
        """Do one batch of jobs; False if there was none."""
        with self._connections.read() as tx:
            if not jobs.is_any_open(tx, kind, self._lease_s):
                return False
        # Loading takes longer than a lease, so it is done before the claim; what fails now fails again with the jobs.
        self._load(kind)
        with self._connections.write() as tx:
            claimed = jobs.claim(tx, kind, _BATCH, self._lease_s)
        if claimed:
            self._do(kind, claimed)
        return bool(claimed)

    def _loop(self, kind: JobKind) -> None:
        while not self._stopping.is_set():
            self._wake[kind].clear()
            try:
                worked = self.work(kind)
            except DatabaseClosedError:
                return
            except Exception as error:  # noqa: BLE001 - say, a full disk: the jobs are still there, and tried again
                self._note(f"{kind}: {type(error).__name__}: {error}")
                worked = False
            if not worked:
                self._wake[kind].wait(_POLL_S)

    def _load(self, kind: JobKind) -> None:
        try:
            self._models.embedder() if kind == "embedding" else self._models.extractor()
        except Exception as error:  # noqa: BLE001 - computing raises it again, and it becomes the error of each job
            self._note(f"{kind}: {error}")

    def _do(self, kind: JobKind, claimed: list[Job]) -> None:
        """Compute and write the results of a batch; if that fails, of each job alone."""
        try:
            writes = self._compute(kind, [job.content for job in claimed])
            with self._connections.write() as tx:
                for job, write in zip(claimed, writes, strict=True):
                    if jobs.finish(tx, job):
                        write(tx, job)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is kept as the error of its job
            if self._stopping.is_set():  # the models may have been closed
                with self._connections.write() as tx:
                    jobs.release(tx, claimed)
            elif len(claimed) > 1:
                for job in claimed:
                    self._do(kind, [job])
            else:
                text = f"{type(error).__name__}: {error}"[:1000]
                # No engine takes lone surrogates, and PostgreSQL no NUL either.
                message = text.encode(errors="replace").decode().replace("\0", "?")
                with self._connections.write() as tx:
                    jobs.fail(tx, claimed[0], message)
                self._note(f"{kind} of a message failed: {message}")
            return
        self._note(f"{kind} of {len(claimed)} messages done", logging.DEBUG)

    def _compute(self, kind: JobKind, texts: list[str]) -> list[_Write]:
        if kind == "entities":
            return [_entity_writer(found) for found in self._models.extractor().extract_batch(texts)]
        vectors, model = self._models.embed_documents(texts)
        return [_vector_writer(parse_vector(vector), model) for vector in vectors]

    def _note(self, event: str, level: int = logging.WARNING) -> None:
        self.last_event = event
        logger.log(level, "%s", excerpt(event, 500))


def _vector_writer(vector: NDArray[np.float32], model: ModelIdentity) -> _Write:
    def write(tx: Transaction, job: Job) -> None:
        put_embedding(tx, job.node_key, vector, model)

    return write


def _entity_writer(found: list[Entity]) -> _Write:
    def write(tx: Transaction, job: Job) -> None:
        message_id = tx.value("SELECT id FROM node WHERE key = :key", key=job.node_key)
        for entity in found:
            place = {"start": entity.start, "end": entity.end}
            entity_id = _entity_id(tx, entity.text, entity.label)
            edge = Edge(new_id(), message_id, entity_id, MENTIONS, time.time(), place)
            insert_edge(tx, edge, woven=True)

    return write


def _entity_id(tx: Transaction, label: str, entity_type: str) -> str:
    """Return the node of an entity, which is made for its first mention."""
    found: str | None = tx.value(
        f"SELECT n.id FROM node n WHERE n.type = 'Entity' AND {tx.string_property('n.properties', 'label')} = :label"
        f" AND {tx.string_property('n.properties', 'entity_type')} = :entity_type ORDER BY n.key LIMIT 1",
        label=label,
        entity_type=entity_type,
    )
    if found is not None:
        return found
    node = Node(new_id(), ENTITY, time.time(), {"label": label, "entity_type": entity_type})
    insert_node(tx, node, woven=True)
    return node.id
