"""Measure every tiny model that gives something else than a vector by one encoder: the second table in docs/models.md.

python -m benchmarks.tasks [--markdown]

The tests named in docs/models.md assert the bounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from akidb_mlx import EmbeddingService, MultiVectorEmbedder, Reranker, Settings, SparseEmbedder
from tests.goldens.make_rerankers import pairs
from tests.support import GOLDENS, TEXTS, golden

_HEADER = ("task", "tiny model", "model_type", "float32: largest difference", "half precision: largest difference")
_ROLES = ("query", "document")

Values = NDArray[np.float32]


def score(directory: Path, settings: Settings) -> tuple[Values, Values]:
    """Return a reranker's scores, and the reference's."""
    with Reranker(directory, device="cpu", settings=settings) as reranker:
        return reranker.scores(pairs()), golden(directory.name)["default"]


def weigh(directory: Path, settings: Settings) -> tuple[Values, Values]:
    """Return the weights of a sparse model as a dense matrix, and the reference's."""
    stored = golden(directory.name)
    texts = [TEXTS[i] for i in stored["texts"]]
    with SparseEmbedder(directory, device="cpu", settings=settings) as sparse:
        found = np.concatenate([sparse.embed_queries(texts).to_dense(), sparse.embed_documents(texts).to_dense()])
    expected = np.zeros_like(found)
    for half, role in enumerate(_ROLES):
        rows = np.repeat(np.arange(len(texts)), np.diff(stored[f"{role}_offsets"])) + half * len(texts)
        expected[rows, stored[f"{role}_indices"]] = stored[f"{role}_values"]
    return found, expected


def embed_tokens(directory: Path, settings: Settings) -> tuple[Values, Values]:
    """Return the vectors of tokens, and the reference's."""
    stored = golden(directory.name)
    with MultiVectorEmbedder(directory, device="cpu", settings=settings) as colbert:
        found = [*colbert.embed_queries(TEXTS), *colbert.embed_documents(TEXTS)]
    return np.concatenate(found), np.concatenate([stored[role] for role in _ROLES])


def embed(directory: Path, settings: Settings) -> tuple[Values, Values]:
    """Return the vectors of a model of two encoders, and the reference's."""
    with EmbeddingService(directory, device="cpu", settings=settings) as towers:
        found = [towers.embed_array(TEXTS, input_type=role) for role in _ROLES]
    return np.concatenate(found), np.concatenate([golden(directory.name)[role] for role in _ROLES])


# The tasks, by the beginning of the names of their models.
TASKS: dict[str, tuple[str, Callable[[Path, Settings], tuple[Values, Values]]]] = {
    "reranker": ("rerank", score),
    "sparse": ("sparse vectors", weigh),
    "colbert": ("a vector for each token", embed_tokens),
    "towers": ("embed, with two encoders", embed),
}


def measure(name: str, precision: str) -> float:
    """Return the largest difference from the reference, in the unit of the largest value where that is above 1."""
    _, run = TASKS[name.partition("-")[0]]
    found, expected = run(GOLDENS / name, Settings(precision=precision))
    return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))


def model_types(name: str) -> str:
    """Return the model types of a tiny model's encoders."""
    paths = sorted((GOLDENS / name).glob("**/config.json"))
    found = [json.loads(path.read_text(encoding="utf-8")).get("model_type") for path in paths]
    return ", ".join(dict.fromkeys(f"`{kind}`" for kind in found if kind))


def main() -> None:
    """Print the table."""
    names = [path.stem for kind in TASKS for path in sorted(GOLDENS.glob(f"{kind}-*.npz"))]
    console = Console(stderr=True)
    rows = []
    for name in track(names, description="tiny models", console=console, disable=not console.is_terminal):
        task, _ = TASKS[name.partition("-")[0]]
        full, half = (f"{measure(name, precision):.1e}" for precision in ("float32", "float16"))
        rows.append((task, f"`{name}`", model_types(name), full, half))
    if "--markdown" in sys.argv[1:]:
        for cells in (_HEADER, ["---"] * len(_HEADER), *rows):
            print(f"| {' | '.join(cells)} |")
        return
    table = Table(*_HEADER)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
