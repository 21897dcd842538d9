"""Nodes in their table, and the jobs and edges that come with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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


def keys_of(tx: Transaction, ids: Iterable[str]) -> dict[str, int]:
    """Return the keys of those nodes that exist, by their ids."""
    return dict(tx.rows(f"SELECT id, key FROM node WHERE id IN ({tx.each_text('ids')})", ids=list(ids)))


def insert_nodes(tx: Transaction, new: Sequence[Node], *, is_woven: bool = False) -> dict[str, int]:
    """Insert nodes, the edges from their chats and their jobs, and return keys by the ids of these and their chats.

    Raises:
        NodeNotFoundError: one names a chat that does not exist, or comes later.
        InvalidRecordError: an id is taken, or a chat is no chat.
    """
    if not new:
        return {}
    ids = list(dict.fromkeys(name for node in new for name in (node.id, node.properties.get("chat_id")) if name))
    _check_new(tx, new, ids)
    tx.run_many(
        "INSERT INTO node (id, type, chat_id, content, created_at, properties, woven)"
        " VALUES (:id, :type, :chat_id, :content, :created_at, :properties, :woven)",
        [
            {
                **{"id": node.id, "type": node.type, "created_at": node.created_at, "woven": int(is_woven)},
                **_columns(tx, node.properties),
            }
            for node in new
        ],
    )
    keys = keys_of(tx, ids)
    contents = {keys[node.id]: node.properties["content"] for node in new if "content" in node.properties}
    chats = {keys[node.id]: keys[node.properties["chat_id"]] for node in new if "chat_id" in node.properties}
    tx.texts_written(contents)
    tx.run_many(
        "INSERT INTO edge (id, from_key, to_key, type, created_at, properties)"
        " VALUES (:id, :chat, :node, :type, :at, '{}')",
        [
            {"id": new_id(), "chat": chats[key], "node": key, "type": CONTAINS, "at": node.created_at}
            for node in new
            if (key := keys[node.id]) in chats
        ],
    )
    enriched = {keys[node.id] for node in new if node.type == MESSAGE}
    texts = {key: text for key, text in contents.items() if key in enriched and jobs.has_text(text)}
    _queue_enrichment(tx, texts, {key: chat for key, chat in chats.items() if key in texts})
    return keys


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
            _queue_enrichment(tx, {key: new["content"]}, {} if chat_id is None else {key: key_of(tx, chat_id)})
        elif node.type == MESSAGE:
            jobs.cancel(tx, [key], jobs.ENRICHMENT)
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


def _check_new(tx: Transaction, new: Sequence[Node], ids: list[str]) -> None:
    """Refuse nodes whose ids are taken, or whose chats are none; `ids` are all that they name."""
    types = dict(tx.rows(f"SELECT id, type FROM node WHERE id IN ({tx.each_text('ids')})", ids=ids))
    for node in new:
        if node.id in types:
            raise InvalidRecordError(f"there is a node {excerpt(node.id)} already: choose another id, or update it")
        if "chat_id" in node.properties:
            _check_chat(node.properties["chat_id"], types.get(node.properties["chat_id"]))
        types[node.id] = node.type


def _check_chat(chat_id: str, kind: str | None) -> None:
    if kind is None:
        raise NodeNotFoundError(f"there is no chat {excerpt(chat_id)}: create it first, or correct chat_id")
    if kind != CHAT:
        raise InvalidRecordError(f"chat_id must name a Chat, found {excerpt(chat_id)}, which is a {excerpt(kind)}")


def _queue_enrichment(tx: Transaction, texts: Mapping[int, str], chats: Mapping[int, int]) -> None:
    """Queue the jobs of messages; a worker with an old one loses it.

    Args:
        tx: the transaction of the change.
        texts: their contents, by their keys.
        chats: the chats of those that no summary covers.
    """
    jobs.enqueue_all(tx, jobs.ENRICHMENT, {key: len(text) for key, text in texts.items()})
    unsummarised.add(tx, chats)


def _columns(tx: Transaction, properties: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in properties.items() if name not in ("chat_id", "content")}
    return {
        "chat_id": properties.get("chat_id"),
        "content": properties.get("content"),
        "properties": tx.json(rest),
    }
