"""Nodes in their table, and the jobs and edges that come with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from embedded_db import jobs, unsummarised, woven
from embedded_db.checks import merge_properties, new_id, parse_properties
from embedded_db.engine import Transaction
from embedded_db.errors import InvalidRecordError, NodeNotFoundError, excerpt
from embedded_db.records import CHAT, CONTAINS, MESSAGE, Node

COLUMNS = "n.id, n.type, n.created_at, n.chat_id, n.content, n.properties"


def make_node(row: tuple[Any, ...]) -> Node:
    """Return the node of a row of `COLUMNS`."""
    node_id, kind, created_at, chat_id, content, stored = row
    properties = json.loads(stored)
    if chat_id is not None:
        properties["chat_id"] = chat_id
    if content is not None:
        properties["content"] = content
    return Node(node_id, kind, created_at, properties)


def find_node(tx: Transaction, node_id: str) -> Node | None:
    """Return a node, or None."""
    row = tx.row(f"SELECT {COLUMNS} FROM node n WHERE n.id = :id", id=node_id)
    return None if row is None else make_node(row)


def nodes_by_key(tx: Transaction, keys: Iterable[int]) -> dict[int, Node]:
    """Return nodes by their keys."""
    sql = f"SELECT n.key, {COLUMNS} FROM node n WHERE n.key IN ({tx.each('keys')})"
    return {row[0]: make_node(row[1:]) for row in tx.rows(sql, keys=list(keys))}


def key_of(tx: Transaction, node_id: str) -> int:
    """Return the key of a node.

    Raises:
        NodeNotFoundError: there is none of this id.
    """
    key: int | None = tx.value("SELECT key FROM node WHERE id = :id", id=node_id)
    if key is None:
        raise NodeNotFoundError.of(node_id)
    return key


def insert_node(tx: Transaction, node: Node, *, is_woven: bool = False) -> int:
    """Insert a node, the edge from its chat and its jobs, and return its key.

    Raises:
        NodeNotFoundError: it names a chat that does not exist.
        InvalidRecordError: the id is taken, or the chat is no chat.
    """
    if find_node(tx, node.id) is not None:
        raise InvalidRecordError(f"there is a node {excerpt(node.id)} already: choose another id, or update it")
    chat_key = None
    if "chat_id" in node.properties:
        chat_key = _chat_key(tx, node.properties["chat_id"])
    key: int = tx.value(
        "INSERT INTO node (id, type, chat_id, content, created_at, properties, woven)"
        " VALUES (:id, :type, :chat_id, :content, :created_at, :properties, :woven) RETURNING key",
        id=node.id,
        type=node.type,
        created_at=node.created_at,
        woven=int(is_woven),
        **_columns(tx, node.properties),
    )
    tx.text_written(key, node.properties.get("content"))
    if chat_key is not None:
        tx.run(
            "INSERT INTO edge (id, from_key, to_key, type, created_at, properties)"
            " VALUES (:id, :chat, :node, :type, :at, '{}')",
            id=new_id(),
            chat=chat_key,
            node=key,
            type=CONTAINS,
            at=node.created_at,
        )
    content = node.properties.get("content")
    if node.type == MESSAGE and jobs.has_text(content):
        _queue_enrichment(tx, key, content, chat_key)
    return key


def update_node(tx: Transaction, node_id: str, changes: Mapping[str, Any]) -> Node:
    """Change properties of a node; None removes one. A new content takes away what came of the old one.

    Raises:
        NodeNotFoundError: there is no such node.
        InvalidRecordError: a property is not usable, or cannot be changed.
    """
    parse_properties(changes)  # what is wrong with them does not depend on the node
    key = key_of(tx, node_id)
    node = nodes_by_key(tx, [key])[key]
    old = node.properties
    if "chat_id" in changes and changes["chat_id"] != old.get("chat_id"):
        raise InvalidRecordError("chat_id cannot be changed: delete the node, and create it in the other chat")
    new = merge_properties(old, changes)
    columns = _columns(tx, new)
    tx.run("UPDATE node SET properties = :properties WHERE key = :key", key=key, properties=columns["properties"])
    if new.get("content") != old.get("content"):
        tx.set_content(key, columns["content"])
        has_text = jobs.has_text(new.get("content"))
        woven.text_changed(tx, key, remains=has_text)
        if node.type == MESSAGE and has_text:
            chat_id = None if woven.is_summarised(tx, key) else new.get("chat_id")
            _queue_enrichment(tx, key, new["content"], None if chat_id is None else _chat_key(tx, chat_id))
        elif node.type == MESSAGE:
            jobs.cancel(tx, key, jobs.ENRICHMENT)
            unsummarised.remove(tx, key)
    return Node(node.id, node.type, node.created_at, new)


def delete_node(tx: Transaction, node_id: str) -> None:
    """Delete a node with its edges, vector and jobs; a chat takes its nodes along.

    Raises:
        NodeNotFoundError: there is no such node.
    """
    keys = [key_of(tx, node_id)]
    if tx.value("SELECT type FROM node WHERE key = :key", key=keys[0]) == CHAT:
        keys += [key for (key,) in tx.rows("SELECT key FROM node WHERE chat_id = :id", id=node_id)]
    for key in keys:
        woven.text_changed(tx, key, remains=False)
        neighbours = woven.neighbours(tx, key)
        tx.run("DELETE FROM node WHERE key = :key", key=key)
        for neighbour in neighbours:
            woven.remove_if_alone(tx, neighbour)


def _queue_enrichment(tx: Transaction, key: int, content: str, chat_key: int | None) -> None:
    """Queue the jobs of a message's content; a worker with an old one loses it.

    Args:
        tx: the transaction of the change.
        key: the message.
        content: its text.
        chat_key: its chat, if no summary covers it.
    """
    for kind in jobs.ENRICHMENT:
        jobs.enqueue(tx, key, kind, len(content))
    if chat_key is not None:
        unsummarised.add(tx, key, chat_key)


def _chat_key(tx: Transaction, chat_id: str) -> int:
    row = tx.row("SELECT key, type FROM node WHERE id = :id", id=chat_id)
    if row is None:
        raise NodeNotFoundError(f"there is no chat {excerpt(chat_id)}: create it first, or correct chat_id")
    key: int = row[0]
    if row[1] != CHAT:
        raise InvalidRecordError(f"chat_id must name a Chat, found {excerpt(chat_id)}, which is a {excerpt(row[1])}")
    return key


def _columns(tx: Transaction, properties: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in properties.items() if name not in ("chat_id", "content")}
    return {
        "chat_id": properties.get("chat_id"),
        "content": properties.get("content"),
        "properties": tx.json(rest),
    }
