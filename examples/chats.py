"""Load a chat log into a database, ask it, and draw what its messages mention: `make demo-db`.

python examples/chats.py [FOLDER]

The folder (demo-db) gets the database, chats.db, and the picture, graph.svg.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import networkx as nx
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from embedded_db import EmbeddedDB

LOG = Path(__file__).parent / "chats.jsonl"
MESSAGE = {"property": "type", "operator": "Equals", "value": "Message"}
BY_BOB = {"property": "sender", "operator": "Equals", "value": "Bob"}
IN_WORK = {"property": "chat_id", "operator": "Equals", "value": "work"}
QUESTIONS = {
    "How do we travel to France?": {},
    "Why is the program slow? (only Bob, in one chat)": {"structural_filters": [BY_BOB, IN_WORK]},
    "baking bread at home, with the word flour": {"text_query": "flour"},
}
COLOURS = {"Chat": "#79b8ff", "Message": "#c9d1d9", "Entity": "#f0a35e"}


def main() -> None:
    """Load the log unless it was loaded before, and show the answers and the graph."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-db")
    folder.mkdir(exist_ok=True)
    console = Console()
    with EmbeddedDB(folder / "chats.db") as db:
        with console.status("loading the models, and enriching the messages"):
            load(db)
        found = db.stats()
        console.print(f"{folder / 'chats.db'}: {found['nodes']}, {found['embeddings']} vectors of {found['model']}\n")
        console.print(answers(db))
        graph = mentions(db)
        console.print(tree(graph))
    draw(graph, folder / "graph.svg")
    console.print(f"\nThe graph is drawn in {folder / 'graph.svg'}. Ask more, for example:")
    console.print(f"  akidb-mlx db query {folder / 'chats.db'} 'night trains' --where chat_id=trip", highlight=False)


def load(db: EmbeddedDB) -> None:
    """Add the messages, and wait for their vectors, their entities and the links between them."""
    ids = []
    for line in LOG.read_text(encoding="utf-8").splitlines():
        message = json.loads(line)
        if db.get_node(message["chat"]) is None:
            db.create_node({"type": "Chat", "id": message["chat"], "title": message["chat_title"]})
        if db.get_node(message["id"]) is None:
            own = {key: message.get(key) for key in ("id", "content", "sender", "role", "metadata")}
            db.create_message(chat_id=message["chat"], **own)
        ids.append(message["id"])
    db.set_activity_level("LowActivity")  # else the links wait for five idle minutes
    for message_id in ids:
        db.wait_until_enriched(message_id, timeout=300)
    while db.weaver_status()["queue_size"]:
        time.sleep(0.05)


def answers(db: EmbeddedDB) -> Table:
    """Return the two best answers to each question."""
    table = Table("question", "score", "from", "message", "entities")
    for question, parts in QUESTIONS.items():
        results = db.query(semantic_query={"text": question}, limit=2, **parts)
        for number, result in enumerate(results):
            entities = {f"{one.label} ({one.entity_type})" for one in db.get_entities_mentioned_in(result.node.id)}
            table.add_row(
                "" if number else question,
                f"{result.similarity_score:.2f}",
                result.node.sender,
                result.node.content,
                ", ".join(sorted(entities)),
                end_section=number == len(results) - 1,
            )
    return table


def mentions(db: EmbeddedDB) -> nx.Graph:
    """Return the chats, their messages and what these mention, for the names that two messages or more share."""
    graph = nx.Graph()
    for result in db.query(structural_filters=[MESSAGE], limit=1000):
        message = result.node
        for entity in db.get_entities_mentioned_in(message.id):
            graph.add_edge(entity.node_id, message.id)
            graph.add_edge(message.chat_id, message.id)
            graph.add_node(entity.node_id, label=entity.label, kind="Entity")
            graph.add_node(message.id, label=message.sender, kind="Message", content=message.content)
            graph.add_node(message.chat_id, label=db.get_node(message.chat_id).title, kind="Chat")
    lonely = [node for node, kind in graph.nodes(data="kind") if kind == "Entity" and graph.degree(node) < 2]
    graph.remove_nodes_from(lonely)
    return graph.subgraph(max(nx.connected_components(graph), key=len))


def tree(graph: nx.Graph) -> Tree:
    """Return each name with the messages that mention it."""
    root = Tree("names that several messages mention")
    entities = [node for node, kind in graph.nodes(data="kind") if kind == "Entity"]
    for entity in sorted(entities, key=graph.degree, reverse=True):
        branch = root.add(f"[bold]{escape(graph.nodes[entity]['label'])}")
        for message in graph[entity]:
            branch.add(escape(f"{graph.nodes[message]['label']}: {graph.nodes[message]['content']}"))
    return root


def draw(graph: nx.Graph, file: Path) -> None:
    """Draw the graph: chats, messages by their senders, and entities."""
    places = nx.spring_layout(graph, seed=3, k=0.5, iterations=200)
    chart = Figure(figsize=(10, 7), layout="constrained")
    axis = chart.subplots()
    axis.set_axis_off()
    nx.draw_networkx_edges(graph, places, ax=axis, edge_color="#8b949e", alpha=0.6)
    for kind, colour in COLOURS.items():
        nodes = [node for node, of in graph.nodes(data="kind") if of == kind]
        size = 300 if kind == "Message" else 1400
        nx.draw_networkx_nodes(graph, places, nodes, ax=axis, node_color=colour, node_size=size, label=kind)
    nx.draw_networkx_labels(graph, places, dict(graph.nodes(data="label")), ax=axis, font_size=8)
    chart.savefig(file)


if __name__ == "__main__":
    main()
