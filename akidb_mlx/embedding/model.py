"""A loaded model: token ids in, pooled vectors out. The lowest layer; everything here runs on the owner thread."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.embedding import cpu_runtime
from akidb_mlx.embedding.checkpoint import Checkpoint
from akidb_mlx.embedding.device import ExecutionPlan, claim
from akidb_mlx.embedding.encoders import TokenBatch, build_encoder
from akidb_mlx.embedding.engine import ModelFacts
from akidb_mlx.embedding.layers import Linear
from akidb_mlx.embedding.pooling import pool
from akidb_mlx.embedding.weights import WeightReader
from akidb_mlx.errors import ModelLoadError


class EmbeddingModel:
    """An encoder with its pooling and Dense layers, on its device.

    Attributes:
        facts: what other threads may know of it.
    """

    def __init__(self, checkpoint: Checkpoint, plan: ExecutionPlan) -> None:
        """Load the weights and try the model on one token.

        Raises:
            ModelLoadError: the checkpoint does not fit its configuration, or yields something that is not finite.
            ConfigurationError: this process computes on another device.
        """
        self._dtype = plan.dtype
        self._pooling = checkpoint.pooling
        claim(plan.device)
        weights = WeightReader(checkpoint, plan)
        self._encoder = build_encoder(checkpoint.model_type, checkpoint.config, weights, plan)
        dimension = self._encoder.hidden_size
        self._dense: list[Linear] = []
        for number, _ in enumerate(checkpoint.dense_activations):
            name = f"dense.{number}"
            outputs = checkpoint.tensors[f"{name}.weight"].shape[0]
            self._dense.append(weights.linear(name, outputs, dimension, bias=weights.has(f"{name}.bias")))
            dimension = outputs
        self._dense_activations = checkpoint.dense_activations
        weights.finish()
        self.facts = ModelFacts(
            dimension=dimension,
            max_tokens=checkpoint.max_tokens,
            token_budget=plan.token_budget,
            lanes=plan.lanes,
            device=plan.device_name,
            precision=plan.precision,
        )
        self._streams = [mx.default_stream(plan.device), *(mx.new_stream(plan.device) for _ in range(plan.lanes - 1))]
        if not np.isfinite(self.encode([([[0]], 1)])).all():
            raise ModelLoadError(
                f"{checkpoint.directory} computes values that are not finite in {plan.precision}: "
                "its weights are damaged, or need a wider precision"
            )

    def encode(self, batches: Sequence[tuple[Sequence[Sequence[int]], int]]) -> list[NDArray[np.float32]]:
        """Run batches side by side, each on a stream of its own.

        Args:
            batches: at most `facts.lanes`; for each, the token ids of its texts, none empty, and what all are padded
                to.

        Returns:
            For each batch (texts, dimension) float32, neither cut nor normalised.
        """
        # The cores that lanes do not use are for the matrix products.
        cpu_runtime.set_blas_threads(max(1, cpu_runtime.cores() // len(batches)))
        results = []
        for stream, (sequences, length) in zip(self._streams, batches, strict=False):
            with mx.stream(stream):
                results.append(self._forward(_pad(sequences, length)))
        mx.eval(results)  # all at once: MLX hands out the operations of one evaluation to all streams in turn
        return [np.array(vectors) for vectors in results]

    def _forward(self, batch: TokenBatch) -> mx.array:
        """(texts, length) → (texts, dimension) float32, lazily."""
        vectors = pool(self._encoder(batch), batch, self._pooling)
        for layer, activation in zip(self._dense, self._dense_activations, strict=True):
            vectors = layer(vectors.astype(self._dtype))
            vectors = mx.tanh(vectors) if activation == "tanh" else vectors
        return vectors.astype(mx.float32)


def _pad(sequences: Sequence[Sequence[int]], length: int) -> TokenBatch:
    ids = np.zeros((len(sequences), length), dtype=np.int32)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return TokenBatch(mx.array(ids), mx.array(lengths), padded=bool((lengths < length).any()))
