"""Edges in their table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedded_db.checks import merge_properties, new_id, parse_name, parse_properties
from embedded_db.engine import Transaction
from embedded_db.errors import EdgeNotFoundError, InvalidRecordError, NodeNotFoundError, excerpt
from embedded_db.nodes import keys_of
from embedded_db.records import ENTITY, MENTIONS, Edge, MentionedEntity
from embedded_db.woven import remove_if_alone

_SELECT = (
    "SELECT e.key, e.id, a.id, b.id, e.type, e.created_at, e.properties"
    " FROM edge e JOIN node a ON a.key = e.from_key JOIN node b ON b.key = e.to_key"
)
_RESERVED = ("from_id", "to_id")


@dataclass(frozen=True)
class NewEdge:
    """An edge between two nodes by their keys; an id and the time are added where they are missing."""

    from_key: int
    to_key: int
    type: str
    properties: Mapping[str, Any]
    id: str = field(default_factory=new_id)
    created_at: float = field(default_factory=time.time)


def find_edge(tx: Transaction, edge_id: str) -> Edge | None:
    """Return an edge, or None."""
    row = tx.row(f"{_SELECT} WHERE e.id = :id", id=edge_id)
    return None if row is None else _make_edge(row)


def edges_by_key(tx: Transaction, keys: list[int]) -> dict[int, Edge]:
    """Return edges by their keys."""
    rows = tx.rows(f"{_SELECT} WHERE e.key IN ({tx.each('keys')})", keys=keys)
    return {row[0]: _make_edge(row) for row in rows}


def insert_edges(tx: Transaction, new: Sequence[Edge]) -> None:
    """Insert edges.

    Raises:
        NodeNotFoundError: an end does not exist.
        InvalidRecordError: an id is taken.
    """
    ids = [edge.id for edge in new]
    taken = {edge_id for (edge_id,) in tx.rows(f"SELECT id FROM edge WHERE id IN ({tx.each_text('ids')})", ids=ids)}
    keys = keys_of(tx, {node_id for edge in new for node_id in (edge.from_id, edge.to_id)})
    for edge in new:
        if edge.id in taken:
            raise InvalidRecordError(f"there is an edge {excerpt(edge.id)} already: choose another id, or update it")
        taken.add(edge.id)
        for node_id in (edge.from_id, edge.to_id):
            if node_id not in keys:
                raise NodeNotFoundError.of(node_id)
    rows = [
        NewEdge(keys[edge.from_id], keys[edge.to_id], edge.type, edge.properties, edge.id, edge.created_at)
        for edge in new
    ]
    add_edges(tx, rows)


def add_edges(tx: Transaction, new: Iterable[NewEdge], *, woven: bool = False) -> None:
    """Insert edges between nodes that exist, with ids that no other has."""
    tx.run_many(
        "INSERT INTO edge (id, from_key, to_key, type, created_at, properties, woven)"
        " VALUES (:id, :from_key, :to_key, :type, :created_at, :properties, :woven)",
        [{**vars(edge), "properties": tx.json(edge.properties), "woven": int(woven)} for edge in new],
    )


def parse_edge(given: Mapping[str, Any]) -> Edge:
    """Return an edge of a dictionary; an id and the time are added.

    Raises:
        InvalidRecordError: a key is missing, unknown or not usable.
    """
    if not isinstance(given, Mapping):
        raise InvalidRecordError(f"an edge must be a dictionary, found {excerpt(given)}")
    for key in given:
        if key not in ("from_id", "to_id", "type", "properties", "id"):
            raise InvalidRecordError(f"an edge has no {excerpt(key)}: put it among its properties")
    return Edge(
        id=new_id() if given.get("id") is None else parse_name("the edge's id", given["id"]),
        from_id=parse_name("from_id", given.get("from_id")),
        to_id=parse_name("to_id", given.get("to_id")),
        type=parse_name("the edge's type", given.get("type")),
        created_at=time.time(),
        properties=parse_edge_properties(given.get("properties")),
    )


def parse_edge_properties(properties: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the properties of an edge, as JSON holds them."""
    parsed = parse_properties(properties)
    for name in _RESERVED:
        if name in parsed:
            raise InvalidRecordError(f"{name!r} cannot be a property of an edge: it is the id of an end")
    return parsed


def update_edge(tx: Transaction, edge_id: str, changes: Mapping[str, Any]) -> Edge:
    """Change properties of an edge; None removes one.

    Raises:
        EdgeNotFoundError: there is no such edge.
    """
    parse_edge_properties(changes)
    edge = find_edge(tx, edge_id)
    if edge is None:
        raise EdgeNotFoundError.of(edge_id)
    properties = merge_properties(edge.properties, changes)
    tx.run("UPDATE edge SET properties = :properties WHERE id = :id", id=edge_id, properties=tx.json(properties))
    return Edge(edge.id, edge.from_id, edge.to_id, edge.type, edge.created_at, properties)


def delete_edge(tx: Transaction, edge_id: str) -> None:
    """Delete an edge, and an entity of the weaver's making whose last one it was.

    Raises:
        EdgeNotFoundError: there is no such edge.
    """
    row = tx.row("DELETE FROM edge WHERE id = :id RETURNING from_key, to_key", id=edge_id)
    if row is None:
        raise EdgeNotFoundError.of(edge_id)
    for key in row:
        remove_if_alone(tx, key)


def mentioned_entities(tx: Transaction, node_id: str) -> list[MentionedEntity]:
    """Return the entities that a node mentions, in the order of their places, each as often as it is mentioned."""
    rows = tx.rows(
        "SELECT b.id, b.properties, e.properties FROM node a JOIN edge e ON e.from_key = a.key AND e.type = :mentions"
        " JOIN node b ON b.key = e.to_key AND b.type = :entity WHERE a.id = :id ORDER BY e.key",
        id=node_id,
        mentions=MENTIONS,
        entity=ENTITY,
    )
    found = []
    for entity_id, of_node, of_edge in rows:
        entity, place = json.loads(of_node), json.loads(of_edge)
        found.append(
            MentionedEntity(
                entity_id, entity.get("label"), entity.get("entity_type"), place.get("start"), place.get("end")
            )
        )
    return found


def _make_edge(row: tuple[Any, ...]) -> Edge:
    _, edge_id, from_id, to_id, kind, created_at, properties = row
    return Edge(edge_id, from_id, to_id, kind, created_at, json.loads(properties))
