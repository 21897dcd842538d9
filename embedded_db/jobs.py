"""The outbox: jobs that are written with a message, claimed under a lease, and removed with their result."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from embedded_db.engine import Transaction

JobKind = Literal["embedding", "entities", "links", "summary"]
# The jobs of a new message, which are done at every level of activity.
ENRICHMENT: tuple[JobKind, ...] = ("embedding", "entities")
# Seconds after which the jobs of a worker that was killed are given to another; one that works renews its lease.
LEASE_S = 60.0
MAX_ATTEMPTS = 5
# A batch in which the embedder finds texts of equal lengths to compute together, and that is soon done.
BATCH = 256
BATCH_CHARACTERS = 1 << 18
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 60.0
# A clock that was set back leaves times too far in the future, which are not waited for.
_OPEN = (
    "kind = :kind AND failed = 0 AND (due <= :now OR due > :now + :longest)"
    " AND (leased_until <= :now OR leased_until > :now + :lease)"
)
# Names all kinds, since the index begins with them.
FAILED = "kind IN ('embedding', 'entities', 'links', 'summary') AND failed = 1"
_MINE = "key = :key AND worker = :worker"


@dataclass(frozen=True)
class Job:
    """A claimed job.

    Attributes:
        key: its key in the table.
        worker: the claim that it belongs to.
        node_key: the node that it is for.
        content: the node's text, as it was when the job was claimed.
        attempts: how often it was claimed, this time included.
    """

    key: int
    worker: str
    node_key: int
    content: str
    attempts: int


def has_text(content: str | None) -> TypeGuard[str]:
    """Return whether there is anything to enrich."""
    return content is not None and bool(content) and not content.isspace()


def enqueue(tx: Transaction, node_key: int, kind: JobKind) -> None:
    """Queue a job; a worker that has the same one loses it."""
    enqueue_all(tx, [kind], {node_key: 0})


def enqueue_all(tx: Transaction, kinds: Iterable[JobKind], sizes: Mapping[int, int]) -> None:
    """Queue jobs of each kind for nodes; a worker that has the same one loses it.

    Args:
        tx: the transaction that makes them necessary.
        kinds: the kinds.
        sizes: by the keys of the nodes, the characters of their texts.
    """
    tx.run_many(
        "INSERT INTO job (node_key, kind, size) VALUES (:node_key, :kind, :size) ON CONFLICT (node_key, kind) DO UPDATE"
        " SET size = excluded.size, failed = 0, attempts = 0, due = 0, worker = '', leased_until = 0, error = ''",
        [{"node_key": key, "kind": kind, "size": size} for key, size in sizes.items() for kind in kinds],
    )


def cancel(tx: Transaction, node_keys: list[int], kinds: Iterable[JobKind]) -> None:
    """Drop jobs of nodes, because they were done in another way or there is nothing left to do."""
    for kind in kinds:
        tx.run(f"DELETE FROM job WHERE node_key IN ({tx.each('keys')}) AND kind = :kind", keys=node_keys, kind=kind)


def exists(tx: Transaction, node_key: int, kind: JobKind) -> bool:
    """Return whether a job is queued, being done or kept as failed."""
    found = tx.value("SELECT 1 FROM job WHERE node_key = :node_key AND kind = :kind", node_key=node_key, kind=kind)
    return found is not None


def is_any_open(tx: Transaction, kind: JobKind, lease_s: float) -> bool:
    """Return whether a job can be claimed now."""
    return tx.value(f"SELECT 1 FROM job WHERE {_OPEN} LIMIT 1", **_times(tx, kind, lease_s)) is not None


def claim(tx: Transaction, kind: JobKind, lease_s: float) -> list[Job]:
    """Take jobs in their order, which no other worker gets until the lease ends.

    The attempt is counted now, so that a text that kills its process is given up in the end. A job that was tried
    before is claimed alone, so that it takes no other along.
    """
    worker, times = uuid.uuid4().hex, _times(tx, kind, lease_s)
    rows = tx.rows(
        f"SELECT key, node_key, size, attempts FROM job WHERE {_OPEN} ORDER BY key LIMIT :most", most=BATCH, **times
    )
    taken: list[tuple[int, int, int]] = []
    characters = 0
    for key, node_key, size, attempts in rows:
        if attempts >= MAX_ATTEMPTS:
            error = f"the process that did it ended, {MAX_ATTEMPTS} times"
            tx.run("UPDATE job SET failed = 1, error = :error WHERE key = :key", key=key, error=error)
            continue
        characters += size
        if taken and (attempts or characters > BATCH_CHARACTERS):
            break
        taken.append((key, node_key, attempts))
        if attempts:
            break
    if not taken:
        return []
    tx.run(
        "UPDATE job SET worker = :worker, leased_until = :until, attempts = attempts + 1"
        f" WHERE key IN ({tx.each('keys')})",
        keys=[key for key, _, _ in taken],
        worker=worker,
        until=times["now"] + lease_s,
    )
    stored = f"SELECT key, content FROM node WHERE key IN ({tx.each('keys')})"
    contents = dict(tx.rows(stored, keys=[node_key for _, node_key, _ in taken]))
    return [Job(key, worker, node_key, contents[node_key] or "", attempts + 1) for key, node_key, attempts in taken]


def renew(tx: Transaction, claimed: Iterable[Job], lease_s: float) -> None:
    """Let the lease of jobs begin anew; those that are done or lost stay as they are."""
    until = tx.now() + lease_s
    tx.run_many(
        f"UPDATE job SET leased_until = :until WHERE {_MINE}", [{**_mine(job), "until": until} for job in claimed]
    )


def finish(tx: Transaction, claimed: Sequence[Job]) -> list[Job]:
    """Remove jobs of one claim whose results are written in this transaction.

    Returns those that were not lost; the results of the others are not wanted.
    """
    kept = set(
        tx.rows(
            f"DELETE FROM job WHERE worker = :worker AND key IN ({tx.each('keys')}) RETURNING key",
            worker=claimed[0].worker,
            keys=[job.key for job in claimed],
        )
    )
    return [job for job in claimed if (job.key,) in kept]


def fail(tx: Transaction, job: Job, error: str) -> None:
    """Note a failed attempt: the job comes back after a while, and after the last attempt it is kept as failed."""
    tx.run(
        f"UPDATE job SET error = :error, failed = :failed, due = :due, worker = '', leased_until = 0 WHERE {_MINE}",
        error=error,
        failed=int(job.attempts >= MAX_ATTEMPTS),
        due=tx.now() + min(_FIRST_DELAY_S * 2 ** (job.attempts - 1), _LONGEST_DELAY_S),
        **_mine(job),
    )


def release(tx: Transaction, claimed: Iterable[Job]) -> None:
    """Give jobs back, as if they had not been claimed."""
    tx.run_many(
        f"UPDATE job SET attempts = attempts - 1, worker = '', leased_until = 0 WHERE {_MINE}",
        [_mine(job) for job in claimed],
    )


def retry_failed(tx: Transaction) -> int:
    """Queue all failed jobs again, and return their number."""
    return tx.run(f"UPDATE job SET failed = 0, attempts = 0, due = 0 WHERE {FAILED}")


def enrichment_of(tx: Transaction, node_key: int) -> list[tuple[JobKind, bool, str]]:
    """Return the jobs of a new message that are not done: kind, whether it was given up, and the last error."""
    rows = tx.rows("SELECT kind, failed, error FROM job WHERE node_key = :node_key", node_key=node_key)
    return [(kind, bool(failed), error) for kind, failed, error in rows if kind in ENRICHMENT]


def _times(tx: Transaction, kind: JobKind, lease_s: float) -> dict[str, Any]:
    return {"kind": kind, "now": tx.now(), "longest": _LONGEST_DELAY_S, "lease": lease_s}


def _mine(job: Job) -> dict[str, Any]:
    return {"key": job.key, "worker": job.worker}
