"""The rows of benchmarks/load.py, small: every vector is right, nothing hangs, nothing grows without bound."""

import pytest

from tests.support import minilm_installed

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(not minilm_installed(), reason="all-MiniLM-L6-v2 is not installed"),
]


def met(rows, *parts: str) -> bool:
    """Whether the rows whose names hold one of the parts met their bounds; speed is the machine's, and not asked."""
    asked = [row for row in rows if any(part in row.name for part in parts)]
    assert len(asked) == len(parts)
    return all(row.met for row in asked)


def test_many_callers_of_one_text():
    from benchmarks.load import callers

    assert met(callers(threads=128, calls=4), "answered")


def test_a_lock_around_embed():
    from benchmarks.load import mutex

    assert met(mutex(threads=64, calls=3), "answered")


def test_short_queries_during_a_bulk_call():
    from benchmarks.load import busy

    assert met(busy(texts=3000, pause=0.1), "p95")


def test_more_load_than_can_be_answered():
    from benchmarks.load import overload

    assert met(overload(seconds=6), "rightly", "offered", "healthy", "memory")


def test_memory_reaches_a_plateau():
    from benchmarks.load import memory

    assert met(memory(calls=1000), "memory")
