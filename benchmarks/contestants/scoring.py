"""Score the documents of a query with one contestant: a worker as `benchmarks.contestants.worker`, for rerankers.

python -m benchmarks.contestants.scoring CONTESTANT
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contestants import OURS, REFERENCE
from benchmarks.contestants.worker import serve

Score = Callable[[list[tuple[str, str]]], NDArray[np.float32]]


class Worker:
    """One method for each kind of request; `load` comes first."""

    def __init__(self, contestant: str) -> None:
        self._load = {OURS: _load_ours, REFERENCE: _load_cross_encoder}[contestant]
        self._score: Score

    def load(self, directory: str) -> dict[str, Any]:
        self._score = self._load(directory)
        return {}

    def score(self, query: str, documents: list[str], vectors: str) -> dict[str, Any]:
        pairs = [(query, document) for document in documents]
        start = time.perf_counter()
        scores = self._score(pairs)
        seconds = time.perf_counter() - start
        np.save(vectors, scores)
        return {"seconds": seconds}


def _load_ours(directory: str) -> Score:
    from akidb_mlx import Reranker, Settings

    return Reranker(directory, device="cpu", settings=Settings(precision="float32")).scores


def _load_cross_encoder(directory: str) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = CrossEncoder(directory, device="cpu", model_kwargs={"dtype": "float32"})
    return lambda pairs: network.predict(pairs, batch_size=32, show_progress_bar=False)


if __name__ == "__main__":
    serve(lambda: Worker(sys.argv[1]))
