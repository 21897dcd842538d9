"""The server's counters, which `exposition` writes for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from akidb_mlx.engine.metrics import Histogram


class ServerMetrics:
    """The counters of one server; used on its event loop only.

    Attributes:
        running: how many requests are being answered.
        requests: how many were, by route and status.
        seconds: how long they took, by route.
        texts: how many texts were answered, by operation and model.
        tokens: how many tokens were read of them.
        truncated: how many of them were cut.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.running = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.texts: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.truncated: Counter[tuple[str, str]] = Counter()

    def begin(self) -> None:
        """Note that a request has come."""
        self.running += 1

    def end(self, route: str, status: int, seconds: float) -> None:
        """Note how a request ended."""
        self.running -= 1
        self.requests[route, status] += 1
        if route not in self.seconds:
            self.seconds[route] = Histogram()
        self.seconds[route].observe(seconds)

    def count_texts(self, operation: str, model: str, token_counts: list[int], truncated: Iterable[bool]) -> None:
        """Count texts that were answered."""
        self.texts[operation, model] += len(token_counts)
        self.tokens[operation, model] += sum(token_counts)
        self.truncated[operation, model] += sum(truncated)
