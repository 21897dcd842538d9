"""Measure selectors in Python, the figures of "In a program" in docs/selection.md.

python -m benchmarks.selection [--json FILE]

A KNN of 10 000 examples of 1 038 values (an embedding of 1 024 and a category) is written, read and asked. The answers
of the batch are compared with those one by one before a time counts.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from akidb_mlx import Selector
from benchmarks.rows import Row, run

_EXAMPLES, _DIMENSION, _QUERIES = 10_000, 1_038, 1_000
_ROUNDS = 3
_Result = TypeVar("_Result")


def knn() -> list[Row]:
    """Measure a large KNN."""
    rng = np.random.default_rng(0)
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 5,
        "embeddings": rng.normal(size=(_EXAMPLES, _DIMENSION)).tolist(),
        "labels": rng.choice(["small", "medium", "large"], _EXAMPLES).tolist(),
        "qualities": rng.random(_EXAMPLES).tolist(),
        "latencies": rng.integers(10**8, 10**10, _EXAMPLES).tolist(),
    }
    queries = rng.normal(size=(_QUERIES, _DIMENSION))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "knn_model.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        del document
        selector, load_s = _time(lambda: Selector.load(path))
        size = path.stat().st_size
    _, write_s = _time(selector.to_json)
    single, single_s = _time(lambda: [selector.select(query) for query in queries])
    batch, batch_s = _time(lambda: selector.select_batch(queries))
    assert batch == single
    each_ms = single_s / _QUERIES * 1000
    name = f"KNN of {_EXAMPLES} examples of {_DIMENSION} values"
    return [
        Row(f"{name}: load of {size / 1e6:.0f} MB", "≤ 6 s", f"{load_s:.1f} s", load_s <= 6),
        Row(f"{name}: to_json", "≤ 6 s", f"{write_s:.1f} s", write_s <= 6),
        Row(f"{name}: one select", "≤ 10 ms", f"{each_ms:.1f} ms", each_ms <= 10),
        Row(f"{name}: batch of {_QUERIES}", "≤ 2 s", f"{batch_s:.2f} s", batch_s <= 2),
        Row(f"{name}: one by one divided by batch", "≥ 3", f"{single_s / batch_s:.1f}", single_s / batch_s >= 3),
    ]


def _time(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """Return a result, and the median of the seconds that it took."""
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - began)
    return result, statistics.median(taken)


if __name__ == "__main__":
    run({"knn": knn}, __doc__ or "")
