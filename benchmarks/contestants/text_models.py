"""Embed documents with a sparse or a multi-vector model of one contestant: a worker as `benchmarks.contestants.worker`.

python -m benchmarks.contestants.text_models CONTESTANT
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.contestants import OURS, REFERENCE
from benchmarks.contestants.worker import serve

Embed = Callable[[list[str]], Any]


class Worker:
    """One method for each kind of request; `load` comes first."""

    def __init__(self, contestant: str) -> None:
        self._load = {OURS: _load_ours, REFERENCE: _load_reference}[contestant]
        self._embed: Embed

    def load(self, directory: str, sparse: bool) -> dict[str, Any]:
        self._embed = self._load(directory, sparse)
        return {}

    def embed(self, texts: list[str], checked: int, vectors: str) -> dict[str, Any]:
        """Embed texts, and save the vectors of the first so many as one matrix."""
        start = time.perf_counter()
        found = self._embed(texts)
        seconds = time.perf_counter() - start
        if hasattr(found, "to_dense"):
            np.save(vectors, np.asarray(found.to_dense())[:checked])
        else:
            np.save(vectors, np.concatenate([np.asarray(found[i]) for i in range(checked)]))
        return {"seconds": seconds}


def _load_ours(directory: str, sparse: bool) -> Embed:
    from akidb_mlx import MultiVectorEmbedder, Settings, SparseEmbedder

    kind = SparseEmbedder if sparse else MultiVectorEmbedder
    return kind(directory, device="cpu", settings=Settings(precision="float32")).embed_documents


def _load_reference(directory: str, sparse: bool) -> Embed:
    import torch
    from sentence_transformers import MultiVectorEncoder, SparseEncoder

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kind = SparseEncoder if sparse else MultiVectorEncoder
    network = kind(directory, device="cpu", model_kwargs={"dtype": "float32"})
    return lambda texts: network.encode_document(texts, batch_size=32, show_progress_bar=False)


if __name__ == "__main__":
    serve(lambda: Worker(sys.argv[1]))
