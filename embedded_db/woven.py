"""The removal of what the weaver made of a node, when the node's text or vector is another or gone."""

from __future__ import annotations

from embedded_db import jobs
from embedded_db.engine import Transaction
from embedded_db.records import MENTIONS, MESSAGE, SIMILAR, SUMMARIZES


def vectors_changed(tx: Transaction, keys: list[int]) -> None:
    """Remove the links of nodes' old vectors; messages are linked anew by their new ones."""
    _remove_links(tx, keys)
    types = dict(tx.rows(f"SELECT key, type FROM node WHERE key IN ({tx.each('keys')})", keys=keys))
    jobs.enqueue_all(tx, ["links"], {key: 0 for key in keys if types[key] == MESSAGE})


def vector_removed(tx: Transaction, key: int) -> None:
    """Remove the links of a node that has no vector any more."""
    _remove_links(tx, [key])
    jobs.cancel(tx, [key], ["links"])


def text_changed(tx: Transaction, key: int, *, remains: bool) -> None:
    """Remove what came of a node's old text: its vector, links and mentions, and the text of its summary.

    Args:
        tx: the transaction of the change.
        key: the node.
        remains: whether it has another text now; without one, no summary covers it any more.
    """
    tx.run("DELETE FROM embedding WHERE node_key = :key", key=key)
    vector_removed(tx, key)
    mentioned = tx.rows(
        "DELETE FROM edge WHERE from_key = :key AND type = :type AND woven = 1 RETURNING to_key", key=key, type=MENTIONS
    )
    for entity in {entity for (entity,) in mentioned}:
        remove_if_alone(tx, entity)
    _outdate_summaries(tx, key, remains)


def _remove_links(tx: Transaction, keys: list[int]) -> None:
    for end in ("from_key", "to_key"):
        links = f"{end} IN ({tx.each('keys')}) AND type = :type AND woven = 1"
        tx.run(f"DELETE FROM edge WHERE {links}", keys=keys, type=SIMILAR)


def is_summarised(tx: Transaction, key: int) -> bool:
    """Return whether a summary covers a message."""
    covering = "SELECT 1 FROM edge WHERE to_key = :key AND type = :type AND woven = 1 LIMIT 1"
    return tx.value(covering, key=key, type=SUMMARIZES) is not None


def neighbours(tx: Transaction, key: int) -> list[int]:
    """Return the nodes of the weaver's making that an edge connects with a node."""
    rows = tx.rows(
        "SELECT n.key FROM edge e JOIN node n ON n.key = e.to_key WHERE e.from_key = :key AND n.woven = 1 UNION"
        " SELECT n.key FROM edge e JOIN node n ON n.key = e.from_key WHERE e.to_key = :key AND n.woven = 1",
        key=key,
    )
    return [neighbour for (neighbour,) in rows]


def remove_if_alone(tx: Transaction, key: int) -> None:
    """Remove a node of the weaver's making that no edge leads to or leaves."""
    tx.run(
        "DELETE FROM node WHERE key = :key AND woven = 1 AND NOT EXISTS"
        " (SELECT 1 FROM edge WHERE to_key = :key UNION ALL SELECT 1 FROM edge WHERE from_key = :key)",
        key=key,
    )


def _outdate_summaries(tx: Transaction, key: int, remains: bool) -> None:
    """Take the text of a message's summaries, which are then written anew; the last message takes its summary along."""
    covering = tx.rows(
        "SELECT from_key FROM edge WHERE to_key = :key AND type = :type AND woven = 1", key=key, type=SUMMARIZES
    )
    for (summary,) in covering:
        if not remains:
            tx.run(
                "DELETE FROM edge WHERE from_key = :summary AND to_key = :key AND type = :type AND woven = 1",
                summary=summary,
                key=key,
                type=SUMMARIZES,
            )
        if tx.value(
            "SELECT 1 FROM edge WHERE from_key = :summary AND type = :type AND woven = 1 LIMIT 1",
            summary=summary,
            type=SUMMARIZES,
        ):
            tx.set_content(summary, None)
            jobs.enqueue(tx, summary, "summary")
        else:
            tx.run("DELETE FROM node WHERE key = :summary AND woven = 1", summary=summary)
