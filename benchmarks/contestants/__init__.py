"""The contestants of `benchmarks.compare`: each is a module with `THREAD_SAFE` and `load`.

The peers' own interpreters import this folder. They have only NumPy and that one peer, so nothing else is imported
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

OURS, REFERENCE, NAIVE = "akidb-mlx", "sentence-transformers", "naive-mlx"
OURS_ON_MLX = "akidb-mlx (mlx)"
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
MODEL2VEC = "model2vec"  # in `benchmarks.static_models` only
# The module of each, in the order of the table.
MODULES = {
    OURS: "akidb",
    OURS_ON_MLX: "akidb_on_mlx",
    ONNX_RUNTIME: "onnx_runtime",
    OPENVINO: "open_vino",
    REFERENCE: "sentence_transformers",
    "mlx-embeddings": "mlx_embeddings",
    NAIVE: "naive_mlx",
}


@dataclass(frozen=True)
class ModelFiles:
    """A model as it is given to the contestants."""

    name: str  # for EmbeddingService: a name in the catalogue, or the directory
    directory: str
    max_tokens: int
    device: str = "cpu"  # or "gpu"
    exported: str = ""  # the folder that `akidb-mlx export` wrote, for backend auto; empty if there is none
    onnx: str = ""  # the folder that `benchmarks.contestants.onnx_export` wrote


@dataclass(frozen=True)
class Prompt:
    """A prompt that is put before each text: akidb-mlx takes its name, the peers take its text."""

    name: str
    text: str


class Encode(Protocol):
    """A loaded model, which returns one vector of unit length for each text, in order.

    It may have an attribute `note`, which says how it computes.
    """

    def __call__(self, texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]: ...
