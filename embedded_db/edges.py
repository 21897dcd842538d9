"""Edges in their table."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from embedded_db.checks import merge_properties, new_id, parse_name, parse_properties
from embedded_db.engine import Transaction
from embedded_db.errors import EdgeNotFoundError, InvalidRecordError, excerpt
from embedded_db.nodes import key_of
from embedded_db.records import ENTITY, MENTIONS, Edge, MentionedEntity
from embedded_db.woven import remove_if_alone

_SELECT = (
    "SELECT e.key, e.id, a.id, b.id, e.type, e.created_at, e.properties"
    " FROM edge e JOIN node a ON a.key = e.from_key JOIN node b ON b.key = e.to_key"
)
_RESERVED = ("from_id", "to_id")


def find_edge(tx: Transaction, edge_id: str) -> Edge | None:
    """Return an edge, or None."""
    row = tx.row(f"{_SELECT} WHERE e.id = :id", id=edge_id)
    return None if row is None else _make_edge(row)


def edges_by_key(tx: Transaction, keys: list[int]) -> dict[int, Edge]:
    """Return edges by their keys."""
    rows = tx.rows(f"{_SELECT} WHERE e.key IN ({tx.each('keys')})", keys=keys)
    return {row[0]: _make_edge(row) for row in rows}


def insert_edge(tx: Transaction, edge: Edge) -> None:
    """Insert an edge.

    Raises:
        NodeNotFoundError: one of its ends does not exist.
        InvalidRecordError: the id is taken.
    """
    if find_edge(tx, edge.id) is not None:
        raise InvalidRecordError(f"there is an edge {excerpt(edge.id)} already: choose another id, or update it")
    from_key, to_key = key_of(tx, edge.from_id), key_of(tx, edge.to_id)
    add_edge(tx, from_key, to_key, edge.type, edge.properties, edge_id=edge.id, created_at=edge.created_at)


def add_edge(
    tx: Transaction,
    from_key: int,
    to_key: int,
    kind: str,
    properties: Mapping[str, Any],
    *,
    edge_id: str | None = None,
    created_at: float | None = None,
    woven: bool = False,
) -> None:
    """Insert an edge between two nodes that exist, with an id that no other has; an id and the time are added."""
    tx.run(
        "INSERT INTO edge (id, from_key, to_key, type, created_at, properties, woven)"
        " VALUES (:id, :from_key, :to_key, :type, :created_at, :properties, :woven)",
        id=edge_id or new_id(),
        from_key=from_key,
        to_key=to_key,
        type=kind,
        created_at=time.time() if created_at is None else created_at,
        properties=tx.json(properties),
        woven=int(woven),
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
