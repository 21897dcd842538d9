"""Draw the throughputs in a report of `benchmarks.compare`, in one panel for each model and workload.

python -m benchmarks.plot REPORT.json CHART.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contestants import OURS

_MODELS = {
    "minilm": "all-MiniLM-L6-v2",
    "gemma": "EmbeddingGemma-300M",
    "mpnet": "all-mpnet-base-v2",
    "modernbert": "ModernBERT-base shape",
    "qwen3": "Qwen3-0.6B shape",
}
_OURS, _OTHERS, _WRONG = "#d1495b", "#8d99ae", "#d9d9d9"
_COLUMNS = 3


def draw(report: dict[str, Any], file: Path) -> None:
    """Write the chart of a report to an SVG file."""
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for figure in report["figures"]:
        if figure["unit"] == "texts/s" and figure["value"] is not None:
            panels.setdefault((figure["model"], figure["workload"]), []).append(figure)
    # Text stays text, and the same report gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "akidb-mlx", "font.size": 9}):
        rows = max(1, -(-len(panels) // _COLUMNS))
        chart = Figure(figsize=(4.2 * _COLUMNS, 0.6 + 1.7 * rows), layout="constrained")
        axes = chart.subplots(rows, _COLUMNS, squeeze=False)
        panel_axes = list(axes.flat)
        most = max(map(len, panels.values()), default=1)
        for axis, ((model, workload), figures) in zip(panel_axes, panels.items(), strict=False):
            axis.set_title(f"{_MODELS[model]}, {workload}", loc="left", fontsize=10, fontweight="bold")
            _draw_panel(axis, figures, most)
        for axis in panel_axes[len(panels) :]:
            axis.set_axis_off()
        machine = report["machine"]
        chart.suptitle(f"texts per second, float32, {machine['cpu']}, {machine['cores']} cores", fontsize=11)
        chart.savefig(file, metadata={"Date": None})


def _draw_panel(axis: Axes, figures: list[dict[str, Any]], most: int) -> None:
    """Draw the bars of one workload, in the height of the panel with the most."""
    values = [figure["value"] for figure in figures]
    bars = axis.barh([figure["contestant"] for figure in figures], values, color=[_colour(f) for f in figures])
    axis.bar_label(bars, labels=[_label(figure) for figure in figures], padding=3)
    axis.invert_yaxis()
    axis.set_ylim(most - 0.5, -0.5)
    axis.set_xlim(0, max(values) * 1.5)  # room for the labels
    axis.set_xticks([])
    axis.tick_params(left=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _colour(figure: dict[str, Any]) -> str:
    if figure["status"] == "wrong":
        return _WRONG
    return _OURS if figure["contestant"] == OURS else _OTHERS


def _label(figure: dict[str, Any]) -> str:
    value = f"{figure['value']:.3g}"
    if figure["status"] == "wrong":
        value += f", wrong: cosine {figure['min_cosine']:.3f}"
    return f"{value} ({figure['note']})" if figure["note"] else value


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
