"""Measure texts per second for each token budget, the figures of "The token budget" in docs/performance.md.

python -m benchmarks.token_budget [--json]

The texts are the sentences of the STS benchmark. Each round measures all budgets in turn, and the median of three
rounds counts. A time counts only after the vectors have been compared with those of the first budget.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from akidb_mlx import EmbeddingService, Settings
from tests.support import WEIGHTS, sts_pairs

_BUDGETS = (128, 256, 384, 512, 768, 1024, 2048)
_ROUNDS = 3
_TOLERANCE = 1e-5
_MODELS = {"minilm-l6-v2": ("minilm-l6-v2", 2758), "embeddinggemma-300m": (str(WEIGHTS / "embeddinggemma-300m"), 256)}


def measure(model: str, count: int) -> dict[int, float]:
    """Return the median texts per second of each budget."""
    first, second, _ = sts_pairs()
    texts = [*first, *second][:count]
    seconds: dict[int, list[float]] = {budget: [] for budget in _BUDGETS}
    expected: NDArray[np.float32] | None = None
    for _ in range(_ROUNDS):
        for budget in _BUDGETS:
            with EmbeddingService(model, settings=Settings(token_budget=budget)) as service:
                start = time.perf_counter()
                vectors = service.embed_array(texts)
                seconds[budget].append(time.perf_counter() - start)
            expected = vectors if expected is None else expected
            if np.abs(vectors - expected).max() > _TOLERANCE:
                raise SystemExit(f"{model}: the vectors of budget {budget} differ")
    return {budget: count / statistics.median(times) for budget, times in seconds.items()}


def main() -> None:
    available = {
        name: value for name, value in _MODELS.items() if name == "minilm-l6-v2" or WEIGHTS.joinpath(name).is_dir()
    }
    results = {name: measure(*value) for name, value in available.items()}
    if "--json" in sys.argv:
        print(json.dumps(results))
        return
    table = Table("model", *(str(budget) for budget in _BUDGETS), title="texts/s for each token budget (* the most)")
    for name, speeds in results.items():
        best = max(speeds.values())
        table.add_row(name, *(f"{speed:.0f}{' *' if speed == best else ''}" for speed in speeds.values()))
    Console().print(table)
    for name in set(_MODELS) - set(available):
        print(f"{name}: not on this machine, not measured")


if __name__ == "__main__":
    main()
