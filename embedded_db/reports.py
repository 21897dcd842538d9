"""The reports of the database, as plain types."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from embedded_db.activity import Activity, ActivityLevel
from embedded_db.embeddings import find_model, model_key
from embedded_db.engine import Transaction
from embedded_db.jobs import FAILED, JobKind
from embedded_db.weaver import Weaver

# The failures that a report names; all of them are counted.
_MOST_FAILURES = 20


class Failure(TypedDict):
    """A job that was given up.

    Attributes:
        node_id: the message, or the chat or summary of a summary.
        kind: "embedding", "entities", "links" or "summary".
        attempts: how often it was tried.
        error: the last error.
    """

    node_id: str
    kind: str
    attempts: int
    error: str


class Queue(TypedDict):
    """The jobs of the whole database.

    Attributes:
        queue_size: jobs that wait or are being done at this level of activity.
        waiting: those by their kind, without kinds that have none.
        deferred: links and summaries that wait for a lower one.
        failed: jobs that were given up.
    """

    queue_size: int
    waiting: dict[str, int]
    deferred: int
    failed: int


class WeaverStatus(Queue):
    """The work of the weaver.

    Attributes:
        active_workers: threads of this process that enrich messages.
        activity_level: "HighActivity", "LowActivity" or "SleepMode".
        paused: the kinds of jobs that this process cannot do at present, with the cause; they are tried again.
        blocked: those of them whose cause does not pass by itself, such as a model that cannot be loaded.
        done: jobs that this process has done.
        failures: the first 20 of the failed jobs.
        last_event: the last thing that this process did, or that went wrong; None before the first.
    """

    active_workers: int
    activity_level: ActivityLevel
    paused: dict[str, str]
    blocked: list[str]
    done: int
    failures: list[Failure]
    last_event: str | None


class Stats(Queue):
    """The amount of what the database holds.

    Attributes:
        path: its file, or ":memory:".
        bytes: size of the file, without the log of recent writes.
        nodes: number of nodes by type.
        edges: number of edges by type.
        embeddings: number of vectors.
        model: the model that they come from, or None.
    """

    path: str
    bytes: int
    nodes: dict[str, int]
    edges: dict[str, int]
    embeddings: int
    model: str | None


def weaver_status(tx: Transaction, weaver: Weaver, activity: Activity) -> WeaverStatus:
    """Return the state of the outbox and of this process's threads."""
    failures = tx.rows(
        f"SELECT n.id, j.kind, j.attempts, j.error FROM job j JOIN node n ON n.key = j.node_key WHERE {FAILED}"
        " ORDER BY j.key LIMIT :most",
        most=_MOST_FAILURES,
    )
    return {
        "active_workers": weaver.active_workers(),
        "activity_level": activity.level(),
        **_queue(tx, activity.kinds()),
        "paused": {kind: pause.reason for kind, pause in weaver.pauses().items()},
        "blocked": [kind for kind, pause in weaver.pauses().items() if not pause.is_transient],
        "done": weaver.done(),
        "failures": [
            {"node_id": node_id, "kind": kind, "attempts": attempts, "error": error}
            for node_id, kind, attempts, error in failures
        ],
        "last_event": weaver.last_event,
    }


def stats(tx: Transaction, path: str, kinds: Sequence[JobKind]) -> Stats:
    """Return the counts of everything."""
    model = find_model(tx)
    return {
        "path": path,
        "bytes": tx.size(),
        "nodes": dict(tx.rows("SELECT type, count(*) FROM node GROUP BY type ORDER BY type")),
        "edges": dict(tx.rows("SELECT type, count(*) FROM edge GROUP BY type ORDER BY type")),
        "embeddings": tx.value("SELECT count(*) FROM embedding WHERE model_key = :model", model=model_key(tx)),
        "model": None if model is None else str(model),
        **_queue(tx, kinds),
    }


def _queue(tx: Transaction, kinds: Sequence[JobKind]) -> Queue:
    counts = {
        (kind, bool(failed)): count
        for kind, failed, count in tx.rows("SELECT kind, failed, count(*) FROM job GROUP BY kind, failed")
    }
    waiting = {kind: count for (kind, failed), count in counts.items() if not failed}
    now = {kind: count for kind, count in waiting.items() if kind in kinds}
    return {
        "queue_size": sum(now.values()),
        "waiting": now,
        "deferred": sum(waiting.values()) - sum(now.values()),
        "failed": sum(counts.values()) - sum(waiting.values()),
    }
