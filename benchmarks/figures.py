"""The figures of `benchmarks.compare`, and their table."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

_MIN_COSINE = 0.999

Vectors = NDArray[np.float32]


@dataclass
class Figure:
    """The measured figure of one contestant on one workload of one model."""

    model: str
    workload: str
    contestant: str
    unit: str
    texts: int
    mean_tokens: float
    status: Literal["ok", "wrong", "absent", "failed"] = "ok"
    note: str = ""
    value: float | None = None  # the median; the best of cold starts
    p95: float | None = None  # the 95th percentile of latencies
    cpu_s: float | None = None  # the median of the CPU's seconds for all texts, of all threads
    speed: float | None = None  # divided by that of akidb-mlx
    min_cosine: float | None = None
    measured: list[float] = field(default_factory=list)
    measured_cpu_s: list[float] = field(default_factory=list)

    def check(self, vectors: Vectors, expected: Vectors) -> None:
        """Compare with the reference's vectors; the naive loop has embedded only the first texts."""
        cosine = float((vectors * expected[: len(vectors)]).sum(axis=1).min())
        self.min_cosine = cosine if self.min_cosine is None else min(cosine, self.min_cosine)
        if not self.min_cosine >= _MIN_COSINE:  # NaN too
            self.status = "wrong"

    def fail(self, status: Literal["absent", "failed"], note: str) -> None:
        """Discard what was measured, and note why."""
        self.status, self.note, self.measured, self.measured_cpu_s = status, note, [], []

    def summarize(self) -> None:
        """Compute the value and the percentile from what was measured."""
        if not self.measured:
            return
        self.value = min(self.measured) if self.unit == "s" else statistics.median(self.measured)
        if self.unit == "ms":
            self.p95 = float(np.percentile(self.measured, 95))
        if self.measured_cpu_s:
            self.cpu_s = statistics.median(self.measured_cpu_s)


def print_table(figures: list[Figure]) -> None:
    """Print the figures as a table."""
    fixed = [Column(name, no_wrap=True) for name in ("workload", "contestant")]
    table = Table(*fixed, Column("figure", overflow="fold"), "CPU s", "speed divided by ours", "min cosine")
    for (model, workload), group in groupby(figures, lambda figure: (figure.model, figure.workload)):
        for figure in group:
            speed = "" if figure.speed is None else f"{figure.speed:.2g}"
            cpu = "" if figure.cpu_s is None else _format_number(figure.cpu_s)
            name = f"{model} {workload}"
            table.add_row(name, figure.contestant, _format_figure(figure), cpu, speed, _format_cosine(figure))
        table.add_section()
    Console().print(table)


def _format_figure(figure: Figure) -> str:
    if figure.value is None:
        return f"[red]{figure.status}[/]: {escape(figure.note)}"
    p95 = "" if figure.p95 is None else f", p95 {_format_number(figure.p95)}"
    note = f" ({figure.note})" if figure.note else ""
    return f"{_format_number(figure.value)} {figure.unit}{p95}{note}"


def _format_number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _format_cosine(figure: Figure) -> str:
    if figure.min_cosine is None:
        return ""
    wrong = " [red]wrong[/]" if figure.status == "wrong" else ""
    return f"{figure.min_cosine:.6f}{wrong}"
