"""Measures the database: one insert, and queries of several kinds at a number of messages.

    python -m benchmarks.database --messages 50000

The vectors are random, so no model is timed. The file lies in a temporary folder and is written with full durability.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedded_db import EmbeddedDB

WORDS = ["rust", "python", "database", "graph", "vector", "search", "message", "paris", "alice", "model", "cache"]
CHATS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, EmbeddedDB(Path(folder) / "a.db", weaver=False) as db:
        fill(db, arguments.messages, arguments.dimension, rng)
        chat, vector = "chat 7", rng.standard_normal(arguments.dimension)
        own = [{"property": "chat_id", "operator": "Equals", "value": chat}]
        near = {"start_node_id": chat, "direction": "Outbound", "depth": 2}
        meaning = {"vector": vector}
        measure("insert one message", lambda: db.create_message(chat_id=chat, content="rust graph"), arguments.rounds)
        start = time.perf_counter()
        db.search_vectors(vector)
        print(f"{'first query, which reads all vectors':40} {(time.perf_counter() - start) * 1000:9.1f} ms")
        for name, parts in {
            "meaning": {"semantic_query": meaning},
            "meaning in one chat": {"semantic_query": meaning, "structural_filters": own},
            "structure, graph depth 2, meaning": {
                "semantic_query": meaning,
                "structural_filters": own,
                "graph_filter": near,
            },
            "text": {"text_query": "rust"},
            "text in one chat": {"text_query": "rust", "structural_filters": own},
            "text and meaning": {"text_query": "rust graph", "semantic_query": meaning},
            "property of JSON": {"structural_filters": [{"field": "metadata.n", "operator": "Equals", "value": 5}]},
        }.items():
            measure(name, lambda parts=parts: db.query(**parts), arguments.rounds)


def fill(db: EmbeddedDB, messages: int, dimension: int, rng: np.random.Generator) -> None:
    start = time.perf_counter()
    db.insert_nodes([{"type": "Chat", "id": f"chat {number}"} for number in range(CHATS)])
    for first in range(0, messages, 1000):
        nodes = db.insert_nodes(
            {
                "type": "Message",
                "chat_id": f"chat {number % CHATS}",
                "content": " ".join(rng.choice(WORDS, 12)),
                "metadata": {"n": number},
            }
            for number in range(first, min(first + 1000, messages))
        )
        vectors = rng.standard_normal((len(nodes), dimension), dtype=np.float32)
        db.insert_embeddings(((node.id, vector) for node, vector in zip(nodes, vectors, strict=True)), "random")
    seconds = time.perf_counter() - start
    print(f"{messages} messages with vectors in {seconds:.1f} s, {messages / seconds:.0f} a second")


def measure(name: str, call: Callable[[], object], rounds: int) -> None:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    print(f"{name:40} {statistics.median(times):9.1f} ms median, {times[int(len(times) * 0.95)]:.1f} ms p95")


if __name__ == "__main__":
    main()
