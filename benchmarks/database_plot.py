"""Draw how the times of `benchmarks.database` grow with the number of messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


def draw(medians: Mapping[str, Mapping[int, float]], file: Path, engine: str) -> None:
    """Write the chart of medians in milliseconds, by the name of what was measured and the size, to an SVG file."""
    # Text stays text, and the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "akidb-mlx", "font.size": 9}):
        chart = Figure(figsize=(9, 5), layout="constrained")
        axis = chart.subplots()
        for name, by_size in medians.items():
            axis.plot(list(by_size), list(by_size.values()), marker="o", markersize=4, label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(sorted({size for by_size in medians.values() for size in by_size}))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
        axis.minorticks_off()
        axis.set_xlabel("messages")
        axis.set_ylabel("median, ms")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        chart.legend(loc="outside right center", frameon=False)
        chart.suptitle(f"Growth of times on {engine}", fontsize=11)
        chart.savefig(file, metadata={"Date": None})
