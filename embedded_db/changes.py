"""The list of the vectors that changed, in order, which the matrices of all processes follow.

A node is in it once, with its last change. Maintenance removes nodes without a vector, and leaves a mark in the place
of the last one: whoever has not seen that change cannot know what is gone, and reads all vectors anew.
"""

from __future__ import annotations

from embedded_db.embeddings import model_key
from embedded_db.engine import Connections, Transaction

# In place of the key of a node, which is at least 1.
MARK = 0
# Rows that are removed in one transaction.
_TOGETHER = 1000


def last(tx: Transaction) -> int:
    """Return the number of the last change."""
    return tx.value("SELECT max(change) FROM embedding_change") or 0


def any_since(tx: Transaction, keys: list[int], seen: int) -> bool:
    """Return whether one of some nodes has, or may have, another vector than after a change that was seen."""
    changed = f"SELECT 1 FROM embedding_change WHERE node_key IN ({tx.each('keys')}) AND change > :seen LIMIT 1"
    return bool(keys) and tx.value(changed, keys=[MARK, *keys], seen=seen) is not None


def trim(connections: Connections) -> None:
    """Remove the nodes without a vector, a part at a time, so that no writer waits long."""
    after = 0
    while True:
        with connections.write() as tx:
            rows = tx.rows(
                "SELECT c.change FROM embedding_change c WHERE c.change >= :after AND NOT EXISTS"
                " (SELECT 1 FROM embedding e WHERE e.model_key = :model AND e.node_key = c.node_key)"
                " ORDER BY c.change LIMIT :most",
                after=after,
                model=model_key(tx),
                most=_TOGETHER,
            )
            gone = [change for (change,) in rows]
            if not gone:
                return
            tx.run(f"DELETE FROM embedding_change WHERE change IN ({tx.each('gone')})", gone=gone[:-1])
            tx.run("UPDATE embedding_change SET node_key = :mark WHERE change = :last", mark=MARK, last=gone[-1])
            after = gone[-1]
        if len(gone) < _TOGETHER:
            return
