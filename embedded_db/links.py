"""Links between messages that mean nearly the same."""

from __future__ import annotations

from collections.abc import Sequence

from embedded_db import changes, jobs
from embedded_db.edges import NewEdge, add_edges
from embedded_db.embeddings import model_key, vector_of
from embedded_db.engine import Ranking, Transaction
from embedded_db.jobs import Job
from embedded_db.records import MESSAGE, SIMILAR

# A message is linked to so many of the nearest others, whose cosine reaches the threshold.
MOST_LINKS = 3
THRESHOLD = 0.85

# The keys of the nearest messages, with their cosines.
Nearest = list[tuple[int, float]]


def find_links(tx: Transaction, ranking: Ranking, claimed: Sequence[Job]) -> list[Nearest]:
    """Return the nearest messages of each job's message, the most similar first; of equal ones the oldest."""
    model = model_key(tx)
    vectors = {job.node_key: vector_of(tx, model, job.node_key) for job in claimed}
    queries = [(key, vector) for key, vector in vectors.items() if vector is not None]
    best = ranking.best_of_each(tx, "n.type = :type", {"type": MESSAGE}, queries, MOST_LINKS, THRESHOLD)
    of_key = {key: one for (key, _), one in zip(queries, best, strict=True)}
    return [
        sorted(of_key.get(job.node_key, {}).items(), key=lambda one: (-one[1], one[0]))[:MOST_LINKS] for job in claimed
    ]


def write_links(tx: Transaction, job: Job, nearest: Nearest, seen: int) -> None:
    """Draw a message's edges to its nearest messages; where a vector has changed since, they are looked for again.

    Args:
        tx: the transaction that removes the job.
        job: the message's.
        nearest: what was found.
        seen: the last change of vectors that was seen when they were found.
    """
    if changes.any_since(tx, [key for key, _ in nearest], seen):
        jobs.enqueue(tx, job.node_key, "links")
        return
    new = [NewEdge(job.node_key, key, SIMILAR, {"similarity": similarity}) for key, similarity in nearest]
    add_edges(tx, new, woven=True)
