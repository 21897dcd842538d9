"""Summaries of chats: one for every 20 messages, written anew when one of these changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from embedded_db import jobs, unsummarised
from embedded_db.checks import new_id
from embedded_db.edges import NewEdge, add_edges
from embedded_db.engine import Transaction
from embedded_db.jobs import Job
from embedded_db.nodes import insert_nodes, nodes_by_key
from embedded_db.records import CHAT, SUMMARIZES, SUMMARY, Node

# What a summariser takes for a speaker's name.
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Draft:
    """Messages that a summary is to cover, by their keys and in their order."""

    messages: dict[int, Node]

    def records(self) -> list[dict[str, Any]]:
        """Return the messages as a summariser takes them."""
        return [_record(message) for message in self.messages.values()]


def find_draft(tx: Transaction, job: Job) -> Draft:
    """Return the messages of a job: the next of a chat, or those that a summary covers already."""
    if _is_chat(tx, job.node_key):
        keys = unsummarised.first(tx, job.node_key)
        keys = keys if len(keys) == unsummarised.MESSAGES else []
    else:
        rows = tx.rows(
            "SELECT to_key FROM edge WHERE from_key = :key AND type = :type AND woven = 1 ORDER BY to_key",
            key=job.node_key,
            type=SUMMARIZES,
        )
        keys = [key for (key,) in rows]
    nodes = nodes_by_key(tx, keys)
    return Draft({key: nodes[key] for key in keys})


def write_summary(tx: Transaction, job: Job, draft: Draft, text: str) -> None:
    """Write a summary of a draft; where the messages are others by now, they are summarised again."""
    is_chat = _is_chat(tx, job.node_key)
    if find_draft(tx, job) != draft:
        jobs.enqueue(tx, job.node_key, "summary")
        return
    if not is_chat:
        tx.set_content(job.node_key, text)
        return
    if not draft.messages:
        return
    chat_id = tx.value("SELECT id FROM node WHERE key = :key", key=job.node_key)
    summary = Node(new_id(), SUMMARY, time.time(), {"chat_id": chat_id, "content": text})
    summary_key = insert_nodes(tx, [summary], is_woven=True)[summary.id]
    add_edges(tx, [NewEdge(summary_key, key, SUMMARIZES, {}) for key in draft.messages], woven=True)
    for key in draft.messages:
        unsummarised.remove(tx, key)
    unsummarised.queue_if_due(tx, job.node_key)


def _is_chat(tx: Transaction, key: int) -> bool:
    return bool(tx.value("SELECT type FROM node WHERE key = :key", key=key) == CHAT)


def _record(message: Node) -> dict[str, Any]:
    names = (message.properties.get(name) for name in ("sender", "role"))
    name = next((name for name in names if isinstance(name, str) and name), None)
    record = {"content": message.properties.get("content", "")}
    return record if name is None else {**record, "name": name[:_LONGEST_NAME]}
