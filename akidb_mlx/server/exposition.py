"""The metrics in Prometheus' text format.

Its library takes a while to import, so this is imported at the first scrape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from akidb_mlx.server.metrics import ServerMetrics


def render(metrics: ServerMetrics, models: dict[str, Any]) -> bytes:
    """Return the metrics of a server and of its loaded models, which are given by name."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, models))
    return generate_latest(registry)


class _Collector:
    def __init__(self, metrics: ServerMetrics, models: dict[str, Any]) -> None:
        self._metrics = metrics
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from _collect_requests(self._metrics)
        yield from _collect_texts(self._metrics)
        yield from _collect_engines(self._models)


def _collect_requests(metrics: ServerMetrics) -> Iterator[Metric]:
    requests = CounterMetricFamily("akidb_http_requests", "Requests by route and status.", labels=("route", "status"))
    for (route, status), count in metrics.requests.items():
        requests.add_metric((route, str(status)), count)
    seconds = HistogramMetricFamily(
        "akidb_http_request_duration_seconds", "Time from a request's head to its answer.", labels=("route",)
    )
    for route, histogram in metrics.seconds.items():
        report = histogram.report()
        seconds.add_metric((route,), list(report["buckets"].items()), report["sum"])
    yield from (requests, seconds)
    yield GaugeMetricFamily("akidb_http_requests_running", "Requests that are being answered.", metrics.running)


def _collect_texts(metrics: ServerMetrics) -> Iterator[Metric]:
    for name, meaning, counts in (
        ("akidb_texts", "Texts that were answered.", metrics.texts),
        ("akidb_tokens", "Tokens that were read of them.", metrics.tokens),
        ("akidb_truncated_texts", "Texts that were cut.", metrics.truncated),
    ):
        family = CounterMetricFamily(name, meaning, labels=("operation", "model"))
        for labels, count in counts.items():
            family.add_metric(labels, count)
        yield family


def _collect_engines(models: dict[str, Any]) -> Iterator[Metric]:
    calls = CounterMetricFamily("akidb_engine_calls", "Calls by outcome.", labels=("model", "outcome"))
    phases = HistogramMetricFamily(
        "akidb_engine_phase_duration_seconds", "Time by phase of a call.", labels=("model", "phase")
    )
    queue = GaugeMetricFamily("akidb_engine_queue_requests", "Calls that are not done.", labels=("model",))
    tokens = GaugeMetricFamily("akidb_engine_queue_tokens", "Tokens that wait.", labels=("model",))
    memory = GaugeMetricFamily(
        "akidb_device_memory_bytes", "Memory of the device's allocator.", labels=("model", "kind")
    )
    for name, model in models.items():
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
