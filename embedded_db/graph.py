"""Searches along edges: what can be reached in many steps, and the shortest path."""

from __future__ import annotations

from embedded_db.edges import edges_by_key
from embedded_db.engine import Transaction
from embedded_db.nodes import key_of, nodes_by_key
from embedded_db.query import Direction
from embedded_db.records import Path

# The end that a step leaves and the one that it leads to.
STEPS = {
    "Outbound": [("from_key", "to_key")],
    "Inbound": [("to_key", "from_key")],
    "Both": [("from_key", "to_key"), ("to_key", "from_key")],
}


def reached_keys(tx: Transaction, start: int, direction: Direction, edge_type: str | None, depth: int) -> list[int]:
    """Return the keys that a breadth-first search reaches, the start included.

    A recursive query would follow the edges of a node once for each length of a way to it.
    """
    reached, frontier = {start}, [start]
    for _ in range(depth):
        following = {there for _, _, there in _edges_from(tx, frontier, direction, edge_type)} - reached
        if not following:
            break
        reached |= following
        frontier = sorted(following)
    return sorted(reached)


def find_shortest_path(
    tx: Transaction, start_id: str, end_id: str, direction: Direction, edge_type: str | None
) -> Path | None:
    """Return a path with the fewest edges, or None where there is none.

    Raises:
        NodeNotFoundError: one of the nodes does not exist.
    """
    start, end = key_of(tx, start_id), key_of(tx, end_id)
    # For each key that was reached, the edge that it was reached by, and from where.
    came_by: dict[int, tuple[int, int] | None] = {start: None}
    frontier = [start]
    while frontier and end not in came_by:
        following: list[int] = []
        for edge, here, there in _edges_from(tx, frontier, direction, edge_type):
            if there not in came_by:
                came_by[there] = (edge, here)
                following.append(there)
        frontier = following
    if end not in came_by:
        return None
    keys, edge_keys = [end], list[int]()
    while (step := came_by[keys[-1]]) is not None:
        edge_keys.append(step[0])
        keys.append(step[1])
    nodes, edges = nodes_by_key(tx, keys), edges_by_key(tx, edge_keys)
    return Path([nodes[key] for key in reversed(keys)], [edges[key] for key in reversed(edge_keys)])


def _edges_from(
    tx: Transaction, keys: list[int], direction: Direction, edge_type: str | None
) -> list[tuple[int, int, int]]:
    """Return the steps from nodes, as the edge, its near end and its far end, in the order of the edges."""
    of_type = " AND e.type = :edge_type" if edge_type is not None else ""
    sql = " UNION ALL ".join(
        f"SELECT e.key, e.{here}, e.{there} FROM edge e WHERE e.{here} IN ({tx.each('keys')}){of_type}"
        for here, there in STEPS[direction]
    )
    values = {} if edge_type is None else {"edge_type": edge_type}
    return [(row[0], row[1], row[2]) for row in tx.rows(f"{sql} ORDER BY 1", keys=keys, **values)]
