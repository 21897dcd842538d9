"""Links between messages that mean nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from embedded_db import jobs
from embedded_db.edges import add_edge
from embedded_db.embeddings import model_key, read_vector
from embedded_db.jobs import Job
from embedded_db.matrix import Keys, VectorMatrix, top
from embedded_db.records import MESSAGE, SIMILAR
from embedded_db.sqlite.connection import Transaction

# A message is linked to so many of the nearest others, whose cosine reaches the threshold.
MOST_LINKS = 3
THRESHOLD = 0.85
# Messages whose products with all vectors are made at once.
_TOGETHER = 16

# The keys of the nearest messages, with their cosines.
Nearest = list[tuple[int, float]]


def find_links(tx: Transaction, matrix: VectorMatrix, claimed: Sequence[Job]) -> list[Nearest]:
    """Return the nearest messages of each job's message, the most similar first; of equal ones the oldest."""
    rows = tx.rows("SELECT key FROM node WHERE type = :type", type=MESSAGE)
    messages = np.fromiter((key for (key,) in rows), np.int64, len(rows))
    found: list[Nearest] = []
    for start in range(0, len(claimed), _TOGETHER):
        found += _nearest(tx, matrix, messages, claimed[start : start + _TOGETHER])
    return found


def write_links(tx: Transaction, job: Job, nearest: Nearest, seen: int) -> None:
    """Draw a message's edges to its nearest messages; where a vector has changed since, they are looked for again.

    Args:
        tx: the transaction that removes the job.
        job: the message's.
        nearest: what was found.
        seen: the last change of vectors that was seen when they were found.
    """
    for key, _ in nearest:
        if tx.value("SELECT 1 FROM embedding_change WHERE node_key = :key AND change > :seen", key=key, seen=seen):
            jobs.enqueue(tx, job.node_key, "links")
            return
    for key, similarity in nearest:
        add_edge(tx, job.node_key, key, SIMILAR, {"similarity": similarity}, woven=True)


def last_change(tx: Transaction) -> int:
    """Return the number of the last change of vectors."""
    return tx.value("SELECT max(change) FROM embedding_change") or 0


def _nearest(tx: Transaction, matrix: VectorMatrix, messages: Keys, claimed: Sequence[Job]) -> list[Nearest]:
    find = partial(
        tx.value, "SELECT vector FROM embedding WHERE model_key = :model AND node_key = :key", model=model_key(tx)
    )
    stored = [find(key=job.node_key) for job in claimed]
    vectors = [read_vector(vector) for vector in stored if vector is not None]
    if not vectors:
        return [[] for _ in claimed]
    keys, scores = matrix.similarities_of(tx, np.stack(vectors))
    is_message = np.isin(keys, messages)
    keys, columns = keys[is_message], iter(scores[is_message].T)
    found: list[Nearest] = []
    for job, vector in zip(claimed, stored, strict=True):
        if vector is None:
            found.append([])
            continue
        others = keys != job.node_key
        best = top(tx, matrix, read_vector(vector), keys[others], next(columns)[others], MOST_LINKS, THRESHOLD)
        found.append(sorted(best.items(), key=lambda one: (-one[1], one[0]))[:MOST_LINKS])
    return found
