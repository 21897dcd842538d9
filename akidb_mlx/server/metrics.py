"""The server's counters, and those of its models, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# From 1 ms to a minute.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class ServerMetrics:
    """The counters of one server.

    Attributes:
        running: how many requests are being answered.
    """

    def __init__(self, models: Callable[[], dict[str, Any]]) -> None:
        """Start at zero.

        Args:
            models: returns the loaded models by name.
        """
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "akidb_http_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "akidb_http_request_duration_seconds",
            "Time from a request's head to its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.running = 0
        running = Gauge("akidb_http_requests_running", "Requests that are being answered.", registry=self._registry)
        running.set_function(lambda: self.running)
        names = ("operation", "model")
        self._texts = Counter("akidb_texts", "Texts that were answered.", names, registry=self._registry)
        self._tokens = Counter("akidb_tokens", "Tokens that were read of them.", names, registry=self._registry)
        self._truncated = Counter("akidb_truncated_texts", "Texts that were cut.", names, registry=self._registry)
        self._registry.register(_ModelCollector(models))

    def begin(self) -> None:
        """Note that a request has come."""
        self.running += 1

    def end(self, route: str, status: int, seconds: float) -> None:
        """Note how a request ended."""
        self.running -= 1
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def count_texts(self, operation: str, model: str, token_counts: Iterable[int], truncated: Iterable[bool]) -> None:
        """Count texts that were answered."""
        counts = list(token_counts)
        self._texts.labels(operation, model).inc(len(counts))
        self._tokens.labels(operation, model).inc(sum(counts))
        self._truncated.labels(operation, model).inc(sum(truncated))

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _ModelCollector:
    """Reads what the engines of the loaded models have counted, when it is asked."""

    def __init__(self, models: Callable[[], dict[str, Any]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield the engines' metrics."""
        calls = CounterMetricFamily("akidb_engine_calls", "Calls by outcome.", labels=("model", "outcome"))
        phases = HistogramMetricFamily(
            "akidb_engine_phase_duration_seconds", "Time by phase of a call.", labels=("model", "phase")
        )
        queue = GaugeMetricFamily("akidb_engine_queue_requests", "Calls that are not done.", labels=("model",))
        tokens = GaugeMetricFamily("akidb_engine_queue_tokens", "Tokens that wait.", labels=("model",))
        memory = GaugeMetricFamily(
            "akidb_device_memory_bytes", "Memory of the device's allocator.", labels=("model", "kind")
        )
        for name, model in self._models().items():
            found = model.get_metrics()
            for outcome, count in found["calls"].items():
                calls.add_metric((name, outcome), count)
            for phase, histogram in found["latency_s"].items():
                phases.add_metric((name, phase), list(histogram["buckets"].items()), histogram["sum"])
            queue.add_metric((name,), found["queue"]["requests"])
            tokens.add_metric((name,), found["queue"]["tokens"])
            for kind, size in found["memory"].items():
                memory.add_metric((name, kind), size)
        yield from (calls, phases, queue, tokens, memory)
