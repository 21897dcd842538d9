"""What an engine counts and times while it works; cheap enough to be always on."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import Any, Literal

Phase = Literal["tokenize", "wait", "compute", "finish", "call"]
PHASES: tuple[Phase, ...] = ("tokenize", "wait", "compute", "finish", "call")
Outcome = Literal["completed", "failed", "cancelled", "timed_out", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("completed", "failed", "cancelled", "timed_out", "refused")
Count = Literal[
    "texts", "truncated_texts", "batches", "sequences", "shared_sequences", "tokens", "padded_tokens", "room"
]

# Upper bounds of the buckets, in seconds: 1, 2, 5 of each decade from 0.1 ms to 100 s.
BUCKETS = (*(float(f"{digit}e{power}") for power in range(-4, 2) for digit in (1, 2, 5)), 100.0)


class Histogram:
    """How often a time fell into each bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def snapshot(self) -> dict[str, Any]:
        """`count`, `sum` in seconds, and `buckets`: for each upper bound, and "+Inf", how many were not above it."""
        total, buckets = 0, {}
        for bound, count in zip((*BUCKETS, "+Inf"), self._counts, strict=True):
            total += count
            buckets[str(bound)] = total
        return {"count": total, "sum": self._sum, "buckets": buckets}


class Metrics:
    """The counters and histograms of one engine; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[Outcome] = Counter()
        self._counts: Counter[Count] = Counter()
        self._latencies = {phase: Histogram() for phase in PHASES}

    def count(self, **amounts: int) -> None:
        """Add to counters, by their names in `Count`."""
        with self._lock:
            self._counts.update(amounts)  # type: ignore[arg-type]

    def observe(self, phase: Phase, seconds: float) -> None:
        """Note how long a phase took."""
        with self._lock:
            self._latencies[phase].observe(seconds)

    def end_call(self, outcome: Outcome, seconds: float | None = None) -> None:
        """Note how a call ended, and after how long where it was admitted."""
        with self._lock:
            self._outcomes[outcome] += 1
            if seconds is not None:
                self._latencies["call"].observe(seconds)

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain types; see `EmbeddingService.get_metrics`."""
        with self._lock:
            counts = self._counts
            padded = counts["padded_tokens"]
            return {
                "calls": {outcome: self._outcomes[outcome] for outcome in OUTCOMES},
                "texts": counts["texts"],
                "truncated_texts": counts["truncated_texts"],
                "sequences": counts["sequences"],
                "shared_sequences": counts["shared_sequences"],
                "batches": counts["batches"],
                "tokens": counts["tokens"],
                "padding_ratio": 1 - counts["tokens"] / padded if padded else 0.0,
                "batch_fill": padded / counts["room"] if padded else 0.0,
                "latency_s": {phase: histogram.snapshot() for phase, histogram in self._latencies.items()},
            }
