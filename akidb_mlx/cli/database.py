"""`akidb-mlx db`, which fills, asks and enriches a database of messages."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from akidb_mlx.catalog import find_record
from akidb_mlx.cli.conditions import parse_condition
from akidb_mlx.cli.database_tables import cells, facts, plain
from akidb_mlx.cli.output import is_terminal, report, write_json, write_line, write_table
from akidb_mlx.cli.slices import progress_bar
from akidb_mlx.errors import InvalidInputError

if TYPE_CHECKING:
    from akidb_mlx.reranking import Reranker
    from embedded_db import EmbeddedDB, ModelIdentity, WeaverStatus
    from embedded_db.chat_log import BadLine

_DEFAULT_MODEL = "minilm-l6-v2"
# Seconds between two looks at the queue, and the share of the time that these may take.
_LOOK_S, _LOOK_SHARE = 0.25, 0.05

database = typer.Typer(help="Fill, ask and enrich a database of messages: see docs/database.md.")

_Path = Annotated[str, typer.Argument(metavar="PATH", help="File of the database, or a postgresql:// address.")]
_Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help=f"Embedding model. Default: that of the database's vectors, else {_DEFAULT_MODEL}."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]


@database.command("import")
def import_logs(
    path: _Path,
    files: Annotated[list[Path], typer.Argument(help="Chat logs: CSV by their ending, and JSONL otherwise.")],
    as_json: _Json = False,
) -> None:
    """Add the messages of chat logs; a database that does not exist is created.

    Each line is a message: content, and perhaps sender, role, chat, chat_title, time, id and metadata. A line that is
    none is reported, the others are added, and the status is 1.
    """
    for file in files:
        if not file.is_file():
            raise InvalidInputError(f"{file} is no file that can be read")
    total = sum(file.stat().st_size for file in files)
    bad: list[BadLine] = []
    with _open(path, must_exist=False) as db, progress_bar("importing, bytes") as bar:
        from embedded_db.chat_log import ChatLogs

        logs = ChatLogs(db)
        before = 0
        for file in files:
            for one in logs.add(file, partial(_advance, bar, before, total)):
                report(str(one))
                bad.append(one)
            before += file.stat().st_size
        waiting = db.stats()["queue_size"]
    if as_json:
        counts = {"messages": logs.messages, "chats": logs.chats, "bad_lines": [asdict(one) for one in bad]}
        write_json({**counts, "queue_size": waiting})
    else:
        write_line(f"{logs.messages} messages added, {logs.chats} new chats, {len(bad)} lines left out")
        if waiting and is_terminal():
            report(f"{waiting} jobs wait: enrich the messages by `akidb-mlx db work --until-idle`")
    if bad:
        raise typer.Exit(1)


@database.command()
def query(
    path: _Path,
    text: Annotated[str | None, typer.Argument(help="Meaning that results are ranked by.")] = None,
    words: Annotated[str | None, typer.Option(help="Words that results hold, all of them.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            help="Condition on a property: sender=Alice, metadata.priority>=3, content~Rust (contains), "
            'role=["user","tool"] (one of). A value that is JSON has its type. May be repeated.',
        ),
    ] = None,
    near: Annotated[str | None, typer.Option(help="Id of a node: only what can be reached from it.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Most edges between that node and a result.")] = 1,
    direction: Annotated[
        Literal["Outbound", "Inbound", "Both"], typer.Option(help="Direction in which edges are followed.")
    ] = "Outbound",
    edge_type: Annotated[str | None, typer.Option("--edge", help="Only edges of this type, such as MENTIONS.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least cosine of the text and a result.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most results.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Results to leave out first.")] = 0,
    reranker: Annotated[
        str | None, typer.Option("--rerank", help="Reranker that orders the best results anew.")
    ] = None,
    model: _Model = None,
    as_json: _Json = False,
) -> None:
    """Find nodes by meaning, words, properties and graph; a result meets all that is given."""
    filters = [parse_condition(one) for one in where or ()]
    graph = {"start_node_id": near, "depth": depth, "direction": direction, "edge_type": edge_type}
    with ExitStack() as resources:
        db = resources.enter_context(_open(path, model))
        results = db.query(
            structural_filters=[_with_time(one) for one in filters],
            graph_filter=None if near is None else graph,
            semantic_query=None if text is None else {"text": text, "threshold": threshold},
            text_query=words,
            limit=limit,
            offset=offset,
            rerank=None if reranker is None else resources.enter_context(_open_reranker(reranker)),
        )
    if as_json:
        write_json({"results": [plain(one) for one in results]})
    else:
        write_table(("score", "time", "from", "text", "id"), map(cells, results))


@database.command()
def status(path: _Path, as_json: _Json = False) -> None:
    """Show what a database holds, and the enrichment that waits or has failed."""
    with _open(path) as db:
        stats, failures = db.stats(), db.weaver_status()["failures"]
    if as_json:
        write_json({**stats, "failures": failures})
        return
    write_table(("", ""), facts(stats), header=False)
    for one in failures:
        report(f"{one['kind']} of {one['node_id']} failed {one['attempts']} times: {one['error']}")


@database.command()
def work(
    path: _Path,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing waits any more.")] = False,
    level: Annotated[
        Literal["HighActivity", "LowActivity", "SleepMode"] | None,
        typer.Option(
            help="Do vectors and entities only, links too, or summaries too. Default: by the time without a new "
            "message; SleepMode with --until-idle."
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try what was given up again first.")] = False,
    model: _Model = None,
    as_json: _Json = False,
) -> None:
    """Enrich messages, until this process is stopped by SIGTERM or Ctrl-C; several may work on one database.

    The status is 1 where --until-idle ends with jobs that failed.
    """
    with _until_terminated() as stopping, _open(path, model, weaver=True) as db, progress_bar("enriching") as bar:
        db.set_activity_level(level or ("SleepMode" if until_idle else None))
        if retry_failed:
            db.retry_failed()
        found = db.weaver_status()
        while not stopping.is_set() and not (until_idle and _is_idle(found)):
            start = time.monotonic()
            found = db.weaver_status()
            if bar is not None:
                bar(found["done"], found["done"] + found["queue_size"])
            stopping.wait(max(_LOOK_S, (time.monotonic() - start) / _LOOK_SHARE))
    failed = found["failed"]
    if as_json:
        write_json({"jobs": found["done"], **{key: found[key] for key in ("queue_size", "failed", "failures")}})
    if until_idle and failed:
        report(f"{failed} jobs failed: see `akidb-mlx db status`")
        raise typer.Exit(1)


@database.command()
def reembed(
    path: _Path,
    model: Annotated[str, typer.Argument(help="Name, org/repo or directory of the new model.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate the vectors, tokens and seconds.")] = False,
    as_json: _Json = False,
) -> None:
    """Change the model of all vectors. The old ones answer until all are there; what was interrupted is resumed."""
    with _open(path) as db, progress_bar("embedding") as bar:
        found = db.reembed(model, dry_run=dry_run, progress=bar)
    if as_json:
        write_json({**found, "dry_run": dry_run})
        return
    before = f" ({found['done']} were there)" if found["done"] else ""
    verb = "would take" if dry_run else "took"
    write_line(
        f"{found['vectors']} vectors of {found['model']}{before}, {found['tokens']} tokens: "
        f"{verb} {found['seconds']:.1f} s"
    )


def _is_idle(found: WeaverStatus) -> bool:
    """Return whether nothing is left to do.

    Raises:
        EnrichmentError: something is, and cannot be done here.
    """
    from embedded_db import EnrichmentError

    blocked = {kind: found["paused"][kind] for kind in found["waiting"] if kind in found["blocked"]}
    if blocked and len(blocked) == len(found["waiting"]):
        raise EnrichmentError("; ".join(f"{kind} cannot be done: {reason}" for kind, reason in blocked.items()))
    return not found["queue_size"]


def _advance(bar: Callable[[int, int | None], None] | None, before: int, total: int, done: int) -> None:
    if bar is not None:
        bar(before + done, total)


@contextmanager
def _until_terminated() -> Iterator[threading.Event]:
    """Give an event that SIGTERM sets in place of ending the process."""
    stopping = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _open_reranker(model: str) -> Iterator[Reranker]:
    from akidb_mlx.reranking import Reranker

    with Reranker(model) as reranker:
        yield reranker


@contextmanager
def _open(
    path: str, model: str | None = None, *, weaver: bool = False, must_exist: bool = True
) -> Iterator[EmbeddedDB]:
    """Open a database with the model of its vectors, unless another one is asked for."""
    from embedded_db import EmbeddedDB  # other commands need not wait for it

    if must_exist and "://" not in path and not Path(path).is_file():
        raise InvalidInputError(f"there is no database {path}: make one by `akidb-mlx db import`")
    if model is None:
        with EmbeddedDB(path, weaver=False) as db:
            stored = db.model
        model = _DEFAULT_MODEL if stored is None else _loadable(stored)
    with EmbeddedDB(path, embedder=model, weaver=weaver) as db:
        yield db


def _loadable(model: ModelIdentity) -> str:
    """Return the name that loads a model in the revision of the vectors."""
    if not model.revision or find_record(model.name) or Path(model.name).is_dir():
        return model.name
    return f"{model.name}@{model.revision}"


def _with_time(condition: dict[str, Any]) -> dict[str, Any]:
    """Return a condition in which a time may be written as a date."""
    from embedded_db.chat_log import parse_time

    if condition["property"] != "created_at" or not isinstance(condition["value"], str):
        return condition
    return {**condition, "value": parse_time(condition["value"])}
