"""The contestants of `benchmarks.compare`, each a module with `THREAD_SAFE` and `load`.

The peers' own interpreters import this folder; they have NumPy and that one peer, so nothing else is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

OURS, REFERENCE, NAIVE = "akidb-mlx", "sentence-transformers", "naive-mlx"
# The module of each, in the order of the table.
MODULES = {
    OURS: "akidb",
    REFERENCE: "sentence_transformers",
    "mlx-embeddings": "mlx_embeddings",
    NAIVE: "naive_mlx",
}


@dataclass(frozen=True)
class ModelFiles:
    """A model as the contestants are given it."""

    name: str  # what EmbeddingService takes: a catalogue name or the directory
    directory: str
    max_tokens: int
    device: str = "cpu"  # or "gpu"


@dataclass(frozen=True)
class Prompt:
    """What stands before each text: our contestant takes the name, the peers take the text."""

    name: str
    text: str


class Encode(Protocol):
    """A loaded model: one vector of unit length for each text, in order."""

    def __call__(self, texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]: ...
