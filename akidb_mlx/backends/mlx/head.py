"""The head of a model: from the vectors of a text's tokens to the model's output for the text.

A `Head` asks the encoder for the token vectors that it needs, and turns them into one row for each
text. `EmbeddingHead` pools them and applies the modules after the pooling.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx.activations import DENSE
from akidb_mlx.backends.mlx.encoders import Encoder, TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import LayerNormReader
from akidb_mlx.backends.mlx.layers import Linear
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.pooling import pool, pooled_positions
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint import head as described
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.errors import ModelLoadError

# The constant of torch.nn.functional.normalize, which sentence-transformers leaves as it is.
_SMALLEST_LENGTH = 1e-12

# Maps (batch, size) to (batch, another size).
Step = Callable[[mx.array], mx.array]


class Head(Protocol):
    """Turns the vectors of an encoder into the output of a model.

    Attributes:
        dimension: size of a row of its output.
    """

    dimension: int

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, dimension) float32, or what a `RaggedHead` makes rows of."""
        ...


class RaggedHead(Head):
    """A head whose rows have shapes of their own once they are taken from its output."""

    @abstractmethod
    def rows(self, output: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the row of each text of a batch, made of the head's output for it, on the host."""


class EmbeddingHead:
    """Pooling, and the modules after it."""

    def __init__(self, head: described.Head, weights: WeightReader, plan: ExecutionPlan, hidden_size: int) -> None:
        """Ask for the layers of the modules, with arrays that are still lazy."""
        self._pooling = head.pooling
        self._steps: list[Step] = []
        self.dimension = hidden_size * len(head.pooling.modes)
        for module in head.modules:
            if isinstance(module, described.Dense):
                self._steps.append(Dense(module, weights, plan, self.dimension))
                self.dimension = module.outputs
            elif isinstance(module, described.LayerNorm):
                norm = LayerNormReader(weights, module.eps, plan.exact, module.bias)
                self._steps.append(norm(module.name, self.dimension))
            else:
                self._steps.append(normalize)

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, dimension) float32."""
        vectors = pool(encoder(batch, pooled_positions(batch, self._pooling)), batch, self._pooling)
        for step in self._steps:
            vectors = step(vectors)
        return vectors.astype(mx.float32)


class Dense:
    """A Dense module of sentence-transformers: activation(x Wᵀ + b), with the input added where it is residual."""

    def __init__(self, module: described.Dense, weights: WeightReader, plan: ExecutionPlan, inputs: int) -> None:
        self._dtype = plan.dtype
        self._linear = weights.linear(module.name, module.outputs, inputs, module.bias)
        self._activation = DENSE[module.activation]
        self._residual: Linear | None = None
        if module.residual and module.outputs != inputs:
            self._residual = weights.linear(f"{module.name}.residual", module.outputs, inputs)
        self._adds_input = module.residual

    def __call__(self, vectors: mx.array) -> mx.array:
        """Map (batch, inputs) to (batch, outputs)."""
        vectors = vectors.astype(self._dtype)
        output = self._activation(self._linear(vectors))
        if not self._adds_input:
            return output
        return output + (vectors if self._residual is None else self._residual(vectors))


def normalize(vectors: mx.array) -> mx.array:
    """Divide each row by its Euclidean length."""
    vectors = vectors.astype(mx.float32)
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), _SMALLEST_LENGTH)


def build_heads(
    checkpoint: Checkpoint, weights: WeightReader, plan: ExecutionPlan, hidden_size: int
) -> dict[str, EmbeddingHead]:
    """Build the head of each route, with arrays that are still lazy.

    Raises:
        ModelLoadError: the vectors of the routes have different sizes.
    """
    heads = {route: EmbeddingHead(head, weights, plan, hidden_size) for route, head in checkpoint.heads.items()}
    sizes = {route: head.dimension for route, head in heads.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{cut(route)}: {size}" for route, size in sizes.items())
        raise ModelLoadError(f"{checkpoint.directory}: the vectors of its routes have different sizes ({found})")
    return heads
