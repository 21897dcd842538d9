"""The head of a multi-vector model: a vector for each token."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx.encoders import Encoder, TokenBatch
from akidb_mlx.backends.mlx.head import Dense, RaggedHead, Step, normalize
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint import head as described
from akidb_mlx.checkpoint.multi_vector_head import MultiVector


class TokenVectorsHead(RaggedHead):
    """The modules that map each token's vector (Khattab and Zaharia 2020, ColBERT)."""

    def __init__(self, head: MultiVector, hidden_size: int, weights: WeightReader, plan: ExecutionPlan) -> None:
        """Ask for the layers, with arrays that are still lazy."""
        self.dimension = hidden_size
        self._steps: list[Step] = []
        for module in head.modules:
            if isinstance(module, described.Dense):
                self._steps.append(Dense(module, weights, plan, self.dimension))
                self.dimension = module.outputs
            else:
                self._steps.append(normalize)

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, length, dimension) float32, also of its padding."""
        vectors = encoder(batch)
        for step in self._steps:
            vectors = step(vectors)
        return vectors.astype(mx.float32)

    def rows(self, output: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the vectors (length, dimension) of each text's tokens and of its padding."""
        return list(output)
