"""The results and counts of a database, as rows of tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from akidb_mlx.cli.output import is_terminal

if TYPE_CHECKING:
    from embedded_db import Node, SearchResult, Stats

# Characters of a text that a person is shown.
_SHOWN_CHARACTERS = 200


def plain(result: SearchResult) -> dict[str, Any]:
    """Return a result as JSON has it."""
    return {
        **{"id": result.node.id, "type": result.node.type, "created_at": result.node.created_at},
        "properties": result.node.properties,
        "similarity_score": result.similarity_score,
        "fused_score": result.fused_score,
        "rerank_score": result.rerank_score,
    }


def cells(result: SearchResult) -> tuple[str, ...]:
    """Return the row of a result: its score, time, sender, text and id."""
    node = result.node
    scores = (result.rerank_score, result.fused_score, result.similarity_score)
    score = next((one for one in scores if one is not None), None)
    sender = node.properties.get("sender") or node.properties.get("entity_type") or node.type
    return "" if score is None else f"{score:.3f}", _when(node.created_at), str(sender), _text(node), node.id


def _when(seconds: float) -> str:
    """Return a time as a date; one that no calendar has, as the number that it is."""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"


def _text(node: Node) -> str:
    names = ("content", "label", "title")
    text = str(next((node.properties[name] for name in names if name in node.properties), ""))
    return f"{text[:_SHOWN_CHARACTERS]}…" if is_terminal() and len(text) > _SHOWN_CHARACTERS else text


def facts(stats: Stats) -> Iterator[tuple[str, str]]:
    """Return what a database holds, as rows of names and values."""
    from rich.filesize import decimal

    yield "path", stats["path"]
    yield "size", decimal(stats["bytes"])
    for name in ("nodes", "edges"):
        for kind, count in stats[name].items():
            yield f"{name}: {kind}", str(count)
    yield "vectors", str(stats["embeddings"])
    yield "model", stats["model"] or "-"
    yield "jobs that wait", ", ".join(f"{kind} {count}" for kind, count in stats["waiting"].items()) or "0"
    yield "jobs that failed", str(stats["failed"])
