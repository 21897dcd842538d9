"""A loaded model: token ids in, pooled vectors out. The lowest layer; everything here runs on the owner thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx import device
from akidb_mlx.backends.mlx.device import ExecutionPlan
from akidb_mlx.backends.mlx.encoders import CausalEncoder, Prefix, TokenBatch, build_encoder
from akidb_mlx.backends.mlx.layers import Linear
from akidb_mlx.backends.mlx.pooling import pool, pooled_token
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.engine.backend import ModelFacts, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.vectors import TokenIds

# How many prompts' keys and values are kept; those of 30 tokens take 3 MB in Qwen3-Embedding-0.6B.
_MAX_PREFIXES = 16


@dataclass(frozen=True)
class DeviceStep:
    """Batches that the device computes."""

    vectors: list[mx.array]

    def result(self) -> list[NDArray[np.float32]]:
        """Wait for the device; for each batch (texts, dimension), neither cut nor normalised."""
        mx.eval(self.vectors)
        return [np.array(vectors) for vectors in self.vectors]


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
        self._plan = plan
        self._pooling = checkpoint.pooling
        device.claim(plan.device)
        device.limit_memory(plan.device)
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
        self._prefixes: OrderedDict[bytes, Prefix] = OrderedDict()
        self._streams = device.lane_streams(plan.device, plan.lanes)
        before = mx.get_active_memory()
        if not np.isfinite(
            DeviceStep(
                [
                    self._forward(
                        TokenRows(np.zeros((1, 1), np.int32), np.ones(1, np.int32), np.empty(0, np.int32)), None
                    )
                ]
            ).result()[0]
        ).all():
            raise ModelLoadError(
                f"{checkpoint.directory} computes values that are not finite in {plan.precision}: "
                "its weights are damaged, or need a wider precision"
            )
        self.facts = ModelFacts(
            dimension=dimension,
            max_tokens=checkpoint.max_tokens,
            token_budget=plan.token_budget,
            lanes=plan.lanes,
            pipelined=plan.pipelined,
            bucket_lengths=plan.bucket_lengths,
            # The vector of a later token is all that is wanted, and it sees those before it through keys and values.
            shares_prefixes=hasattr(self._encoder, "prefix") and self._pooling == "last",
            device=plan.device_name,
            precision=plan.precision,
            weight_bytes=mx.get_active_memory() - before,
        )

    def start(self, batches: Sequence[TokenRows]) -> DeviceStep:
        """Hand batches to the device, side by side, each on a stream of its own.

        Args:
            batches: at most `facts.lanes`.
        """
        prefixes = [self._prefix(batch.prefix) for batch in batches]
        # The cores that lanes do not use are for the matrix products.
        cpu_runtime.set_blas_threads(max(1, cpu_runtime.cores() // len(batches)))
        vectors = []
        for stream, batch, prefix in zip(self._streams, batches, prefixes, strict=False):
            with mx.stream(stream):
                vectors.append(self._forward(batch, prefix))
        if self._plan.pipelined:
            mx.async_eval(vectors)  # type: ignore[no-untyped-call]
        return DeviceStep(vectors)

    def memory(self) -> dict[str, int]:
        """Bytes that MLX's allocator holds."""
        return device.memory()

    def release_memory(self) -> None:
        """Give back what is only kept for reuse."""
        device.release_memory()

    def close(self) -> None:
        """Free the weights; the last call."""
        del self._encoder, self._dense, self._prefixes
        device.release_memory()

    def _prefix(self, tokens: TokenIds) -> Prefix | None:
        """The keys and values of token ids, computed once for as long as they are in use."""
        ids = tokens.tobytes()
        if not ids:
            return None
        if ids not in self._prefixes:
            cpu_runtime.set_blas_threads(cpu_runtime.cores())
            prefix = cast("CausalEncoder", self._encoder).prefix(mx.array(tokens)[None])
            mx.eval(prefix.layers)
            self._prefixes[ids] = prefix
            if len(self._prefixes) > _MAX_PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(ids)
        return self._prefixes[ids]

    def _forward(self, rows: TokenRows, prefix: Prefix | None) -> mx.array:
        """Return (rows, dimension) float32, lazily."""
        padded = bool((rows.lengths < rows.ids.shape[1]).any())
        batch = TokenBatch(mx.array(rows.ids), mx.array(rows.lengths), padded=padded, prefix=prefix)
        only = pooled_token(batch, self._pooling)
        vectors = pool(self._encoder(batch, only), batch, self._pooling)
        for layer, activation in zip(self._dense, self._dense_activations, strict=True):
            vectors = layer(vectors.astype(self._plan.dtype))
            vectors = mx.tanh(vectors) if activation == "tanh" else vectors
        return vectors.astype(mx.float32)
