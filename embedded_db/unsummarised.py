"""The messages that no summary covers yet."""

from __future__ import annotations

from collections.abc import Mapping

from embedded_db import jobs
from embedded_db.engine import Transaction

# So many messages of a chat make a summary.
MESSAGES = 20


def add(tx: Transaction, chats: Mapping[int, int]) -> None:
    """Note messages with text, by their keys, and queue the summaries of their chats that these complete."""
    tx.run_many(
        "INSERT INTO unsummarised (node_key, chat_key) VALUES (:key, :chat) ON CONFLICT (node_key) DO NOTHING",
        [{"key": key, "chat": chat} for key, chat in chats.items()],
    )
    for chat in dict.fromkeys(chats.values()):
        queue_if_due(tx, chat)


def remove(tx: Transaction, key: int) -> None:
    """Take a message away, because a summary covers it or its text is gone."""
    tx.run("DELETE FROM unsummarised WHERE node_key = :key", key=key)


def first(tx: Transaction, chat_key: int) -> list[int]:
    """Return the oldest messages of a chat that no summary covers, as many as make one at most."""
    rows = tx.rows(
        "SELECT node_key FROM unsummarised WHERE chat_key = :chat ORDER BY node_key LIMIT :most",
        chat=chat_key,
        most=MESSAGES,
    )
    return [key for (key,) in rows]


def queue_if_due(tx: Transaction, chat_key: int) -> None:
    """Queue a chat's summary if there are enough messages, unless it is queued already."""
    # Not in one statement, which takes several times as long.
    if jobs.exists(tx, chat_key, "summary"):
        return
    last = "SELECT 1 FROM unsummarised WHERE chat_key = :chat ORDER BY node_key LIMIT 1 OFFSET :before"
    if tx.value(last, chat=chat_key, before=MESSAGES - 1) is not None:
        jobs.enqueue(tx, chat_key, "summary")
