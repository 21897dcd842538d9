"""The scenarios of benchmarks/load.py, small: every vector is right, nothing hangs, nothing grows without bound."""

import pytest

from tests.support import minilm_installed

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(not minilm_installed(), reason="all-MiniLM-L6-v2 is not installed"),
]


def check(rows, *parts: str) -> None:
    """The rows whose names hold one of the parts meet their bounds; speed is the machine's, and not asked."""
    asked = [row for row in rows if any(part in row.name for part in parts)]
    assert len(asked) == len(parts)
    assert [f"{row.name}: {row.measured}" for row in asked if not row.met] == []


def test_many_callers_of_one_text():
    from benchmarks.load import callers

    check(callers(threads=128, calls=2), "answered")


def test_a_lock_around_embed():
    from benchmarks.load import mutex

    check(mutex(threads=64, calls=2), "answered")


def test_short_queries_during_a_bulk_call():
    from benchmarks.load import busy

    check(busy(texts=1500, pause=0.1), "95th percentile")


def test_more_load_than_can_be_answered():
    from benchmarks.load import overload

    # A queue that is full at once on a slow machine too, since calls that fill it are accepted beside the others.
    check(overload(seconds=4, queued=8), "correctly", "offered", "healthy", "memory")


def test_memory_reaches_a_plateau():
    from benchmarks.load import memory

    check(memory(calls=500), "memory")
