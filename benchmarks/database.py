"""Measures the database: one insert, and queries of several kinds at a number of messages.

    python -m benchmarks.database --messages 50000
    python -m benchmarks.database --messages 50000 --postgres
    python -m benchmarks.database --messages 50000 --postgres --index

The vectors are random, so no model is timed. The file, or the server of the tests, lies in a temporary folder and is
written with full durability.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg

from embedded_db import EmbeddedDB
from tests.postgres_server import PostgresServer

WORDS = ["rust", "python", "database", "graph", "vector", "search", "message", "paris", "alice", "model", "cache"]
CHATS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--postgres", action="store_true", help="a server of PostgreSQL in place of a file")
    parser.add_argument("--index", action="store_true", help="with an HNSW index on it")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "a.db"
        if arguments.postgres:
            server = PostgresServer({"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB"})
            stack.callback(server.remove)
            path = server.url()
        db = stack.enter_context(EmbeddedDB(path, weaver=False))
        fill(db, arguments.messages, arguments.dimension, rng)
        db._connections.maintain()
        if arguments.index:
            create_index(path, arguments.dimension)
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


def create_index(url: str, dimension: int) -> None:
    start = time.perf_counter()
    with psycopg.connect(url) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute(
            f"CREATE INDEX ON akidb.unit_vector USING hnsw ((unit::vector({dimension})) vector_ip_ops)"
            f" WHERE model_key = {connection.execute('SELECT key FROM akidb.model').fetchone()[0]}"
        )
    print(f"HNSW index in {time.perf_counter() - start:.1f} s")


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
