"""Counters and timings of an engine; cheap enough to be always on."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

from akidb_mlx.reports import CallCounts, EngineMetrics, HistogramReport

Phase = Literal["tokenize", "wait", "device_wait", "compute", "finish", "call"]
PHASES: tuple[Phase, ...] = ("tokenize", "wait", "device_wait", "compute", "finish", "call")
Outcome = Literal["completed", "failed", "cancelled", "timed_out", "refused"]
Count = Literal[
    "texts", "truncated_texts", "batches", "sequences", "shared_sequences", "tokens", "padded_tokens", "capacity"
]

# Upper bounds of the buckets, in seconds: 1, 2, 5 of each decade from 0.1 ms to 100 s.
BUCKETS = (*(float(f"{digit}e{power}") for power in range(-4, 2) for digit in (1, 2, 5)), 100.0)
# Seconds that a snapshot waits for a thread that is just counting, before it is taken halfway.
_SNAPSHOT_WAIT_S = 0.05


class Histogram:
    """Counts of the times that fell into each bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def report(self) -> HistogramReport:
        """Return the counts, cumulative over the buckets."""
        total, buckets = 0, {}
        for bound, count in zip((*BUCKETS, "+Inf"), self._counts, strict=True):
            total += count
            buckets[str(bound)] = total
        return {"count": total, "sum": self._sum, "buckets": buckets}


class Metrics:
    """The counters and histograms of one engine.

    Any thread may count, also in a signal handler that interrupts one that is counting: a change is first appended to
    a queue, and whoever finds the lock free applies what the queue holds.
    """

    def __init__(self) -> None:
        self._changes: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._outcomes: Counter[Outcome] = Counter()
        self._counts: Counter[Count] = Counter()
        self._latencies = {phase: Histogram() for phase in PHASES}

    def count(self, amounts: dict[Count, int]) -> None:
        """Add to counters."""
        self._apply(lambda: self._counts.update(amounts))

    def observe(self, phase: Phase, seconds: float) -> None:
        """Note how long a phase took."""
        self._apply(lambda: self._latencies[phase].observe(seconds))

    def end_call(self, outcome: Outcome, seconds: float | None = None) -> None:
        """Note how a call ended, and after how many seconds where it was admitted."""

        def change() -> None:
            self._outcomes[outcome] += 1
            if seconds is not None:
                self._latencies["call"].observe(seconds)

        self._apply(change)

    def report(self) -> EngineMetrics:
        """Return everything as plain types."""
        held = self._lock.acquire(timeout=_SNAPSHOT_WAIT_S)  # not held where a signal handler interrupted a change
        try:
            counts, outcomes = dict(self._counts), dict(self._outcomes)
            latencies: dict[str, HistogramReport] = {
                phase: histogram.report() for phase, histogram in self._latencies.items()
            }
        finally:
            if held:
                self._lock.release()
        ended: CallCounts = {
            "completed": outcomes.get("completed", 0),
            "failed": outcomes.get("failed", 0),
            "cancelled": outcomes.get("cancelled", 0),
            "timed_out": outcomes.get("timed_out", 0),
            "refused": outcomes.get("refused", 0),
        }
        tokens, padded = counts.get("tokens", 0), counts.get("padded_tokens", 0)
        return {
            "calls": ended,
            "texts": counts.get("texts", 0),
            "truncated_texts": counts.get("truncated_texts", 0),
            "sequences": counts.get("sequences", 0),
            "shared_sequences": counts.get("shared_sequences", 0),
            "batches": counts.get("batches", 0),
            "tokens": tokens,
            "padding_ratio": 1 - tokens / padded if padded else 0.0,
            "batch_fill": padded / counts["capacity"] if padded else 0.0,
            "latency_s": latencies,
        }

    def _apply(self, change: Callable[[], None]) -> None:
        self._changes.append(change)
        # Again after the release: a change that was appended meanwhile, and did not find the lock free, is ours.
        while self._changes and self._lock.acquire(blocking=False):
            try:
                while self._changes:
                    self._changes.popleft()()
            finally:
                self._lock.release()
