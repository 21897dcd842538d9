"""The outbox: jobs that are written with a message, claimed under a lease, and removed with their result."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Literal

from embedded_db.engine import Transaction

JobKind = Literal["embedding", "entities"]
KINDS: tuple[JobKind, ...] = ("embedding", "entities")
# Seconds after which the jobs of a worker that was killed are given to another.
LEASE_S = 60.0
MAX_ATTEMPTS = 5
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 60.0
# A clock that was set back leaves times too far in the future, which are not waited for.
_OPEN = (
    "kind = :kind AND failed = FALSE AND (due <= :now OR due > :now + :longest)"
    " AND (leased_until <= :now OR leased_until > :now + :lease)"
)


@dataclass(frozen=True)
class Job:
    """A claimed job.

    Attributes:
        key: its key in the table.
        worker: the claim that it belongs to.
        node_key: the message that it is for.
        content: the message's text.
        attempts: how often it has failed.
    """

    key: int
    worker: str
    node_key: int
    content: str
    attempts: int


def enqueue(tx: Transaction, node_key: int, content: str | None) -> None:
    """Queue the jobs of a message's new content; a worker that has the old one's loses them."""
    tx.run("DELETE FROM job WHERE node_key = :node_key", node_key=node_key)
    if content is not None and not content.isspace() and content:
        for kind in KINDS:
            tx.run("INSERT INTO job (node_key, kind) VALUES (:node_key, :kind)", node_key=node_key, kind=kind)


def cancel(tx: Transaction, node_key: int, kind: JobKind) -> None:
    """Drop a job, because the caller has done it."""
    tx.run("DELETE FROM job WHERE node_key = :node_key AND kind = :kind", node_key=node_key, kind=kind)


def is_any_open(tx: Transaction, kind: JobKind, lease_s: float) -> bool:
    """Return whether a job can be claimed now."""
    sql = f"SELECT EXISTS (SELECT 1 FROM job WHERE {_OPEN})"
    return bool(tx.value(sql, kind=kind, now=time.time(), longest=_LONGEST_DELAY_S, lease=lease_s))


def claim(tx: Transaction, kind: JobKind, most: int, lease_s: float) -> list[Job]:
    """Take jobs in their order, which no other worker gets until the lease ends."""
    worker, now = uuid.uuid4().hex, time.time()
    claimed = tx.rows(
        "UPDATE job SET worker = :worker, leased_until = :now + :lease WHERE key IN"
        f" (SELECT key FROM job WHERE {_OPEN} ORDER BY key LIMIT :most) RETURNING key",
        worker=worker,
        kind=kind,
        now=now,
        lease=lease_s,
        longest=_LONGEST_DELAY_S,
        most=most,
    )
    rows = tx.rows(
        "SELECT j.key, j.node_key, n.content, j.attempts FROM job j JOIN node n ON n.key = j.node_key"
        f" WHERE j.key IN ({tx.each('keys')}) ORDER BY j.key",
        keys=[key for (key,) in claimed],
    )
    return [Job(key, worker, node_key, content, attempts) for key, node_key, content, attempts in rows]


def finish(tx: Transaction, job: Job) -> bool:
    """Remove a job whose result is written in this transaction; False if it was lost, and the result is not wanted."""
    return bool(tx.run("DELETE FROM job WHERE key = :key AND worker = :worker", key=job.key, worker=job.worker))


def fail(tx: Transaction, job: Job, error: str) -> None:
    """Note a failed attempt: the job comes back after a while, and after the last attempt it is kept as failed."""
    attempts = job.attempts + 1
    delay = min(_FIRST_DELAY_S * 2**job.attempts, _LONGEST_DELAY_S)
    tx.run(
        "UPDATE job SET attempts = :attempts, error = :error, failed = :failed, due = :due, worker = '',"
        " leased_until = 0 WHERE key = :key AND worker = :worker",
        key=job.key,
        worker=job.worker,
        attempts=attempts,
        error=error,
        failed=attempts >= MAX_ATTEMPTS,
        due=time.time() + delay,
    )


def release(tx: Transaction, jobs: list[Job]) -> None:
    """Give jobs back that were not begun."""
    for job in jobs:
        tx.run(
            "UPDATE job SET worker = '', leased_until = 0 WHERE key = :key AND worker = :worker",
            key=job.key,
            worker=job.worker,
        )


def retry_failed(tx: Transaction) -> int:
    """Queue all failed jobs again, and return their number."""
    return tx.run("UPDATE job SET failed = FALSE, attempts = 0, due = 0 WHERE failed")


def of_node(tx: Transaction, node_key: int) -> list[tuple[str, bool, str]]:
    """Return the jobs of a node that are not done: kind, whether it was given up, and the last error."""
    rows = tx.rows("SELECT kind, failed, error FROM job WHERE node_key = :node_key", node_key=node_key)
    return [(kind, bool(failed), error) for kind, failed, error in rows]
