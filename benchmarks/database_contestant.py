"""One contestant of `benchmarks.database_peers`, run as a script by the Python that has it; its report is JSON.

python benchmarks/database_contestant.py NAME DATA.npz FOLDER

Nothing of this project is imported except by its own contestant, since the peers' environments lack it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
_TOGETHER = 1000
# Inserts vectors from one number on, with their senders.
Insert = Callable[[int, NDArray[np.float32], list[str]], object]
# Returns the numbers of the nearest, perhaps of one sender.
Search = Callable[[NDArray[np.float32], "str | None"], list[int]]


def embedded_db(folder: str, _: bool) -> tuple[Insert, Callable[[], object], Search]:
    from embedded_db import EmbeddedDB

    db = EmbeddedDB(f"{folder}/a.db", weaver=False)

    def insert(first: int, vectors: NDArray[np.float32], senders: list[str]) -> None:
        nodes = [{"type": "Item", "id": str(first + i), "sender": sender} for i, sender in enumerate(senders)]
        db.insert_nodes(nodes)
        db.insert_embeddings([(str(first + i), vector) for i, vector in enumerate(vectors)], "random")

    def search(query: NDArray[np.float32], sender: str | None) -> list[int]:
        filters = [] if sender is None else [{"property": "sender", "operator": "Equals", "value": sender}]
        found = db.query(structural_filters=filters, semantic_query={"vector": query}, limit=NEAREST)
        return [int(one.node.id) for one in found]

    return insert, lambda: None, search


def chroma(folder: str, _: bool) -> tuple[Insert, Callable[[], object], Search]:
    import chromadb

    client = chromadb.PersistentClient(folder, settings=chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("items", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})

    def insert(first: int, vectors: NDArray[np.float32], senders: list[str]) -> None:
        ids = [str(first + i) for i in range(len(senders))]
        collection.add(ids=ids, embeddings=vectors, metadatas=[{"sender": sender} for sender in senders])

    def search(query: NDArray[np.float32], sender: str | None) -> list[int]:
        where = None if sender is None else {"sender": sender}
        found = collection.query(query_embeddings=[query], n_results=NEAREST, where=where)
        return [int(one) for one in found["ids"][0]]

    return insert, lambda: None, search


def lancedb(folder: str, indexed: bool) -> tuple[Insert, Callable[[], object], Search]:
    import lancedb as lance
    import pyarrow as pa

    table: Any = None
    database = lance.connect(folder)

    def insert(first: int, vectors: NDArray[np.float32], senders: list[str]) -> None:
        nonlocal table
        rows = pa.table(
            {
                "number": pa.array(range(first, first + len(senders))),
                "sender": pa.array(senders),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            }
        )
        if table is None:
            table = database.create_table("items", rows)
        else:
            table.add(rows)

    def finish() -> None:
        table.optimize()
        if indexed:
            table.create_index(metric="cosine", num_partitions=max(1, table.count_rows() // 4096), num_sub_vectors=96)

    def search(query: NDArray[np.float32], sender: str | None) -> list[int]:
        asked = table.search(query).distance_type("cosine").limit(NEAREST)
        if sender is not None:
            asked = asked.where(f"sender = '{sender}'", prefilter=True)
        return [int(row["number"]) for row in asked.to_list()]

    return insert, finish, search


CONTESTANTS = {
    "embedded_db": (embedded_db, "akidb-mlx"),
    "chroma": (chroma, "chromadb"),
    "lancedb": (lancedb, "lancedb"),
}


def main() -> None:
    name, data, folder = sys.argv[1:]
    kind, _, index = name.partition(", ")
    make, package = CONTESTANTS[kind]
    with np.load(data) as arrays:
        vectors, queries, senders, asked = (arrays[key] for key in ("vectors", "queries", "senders", "asked"))
    insert, finish, search = make(folder, bool(index))
    start = time.perf_counter()
    for first in range(0, len(vectors), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        insert(first, vectors[part], [f"s{sender}" for sender in senders[part]])
    finish()
    report: dict[str, Any] = {"version": version(package)}
    report["messages_per_s"] = len(vectors) / (time.perf_counter() - start)
    for key, filters in (("all", [None] * len(queries)), ("filtered", [f"s{sender}" for sender in asked])):
        search(queries[0], filters[0])  # what is read once is not timed
        times, report[key] = [], []
        for query, sender in zip(queries, filters, strict=True):
            start = time.perf_counter()
            found = search(query, sender)
            times.append((time.perf_counter() - start) * 1000)
            report[key].append(found)
        report[f"{key}_ms"] = statistics.median(times)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
