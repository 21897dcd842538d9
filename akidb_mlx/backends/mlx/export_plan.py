"""An embedding model as a traced computation, whose attention, rotations and activations are named operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.backends.mlx import activations
from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Attention, Mask, biased_mask, fused_attention
from akidb_mlx.backends.mlx.encoders import TokenBatch, build_encoder
from akidb_mlx.backends.mlx.head import build_heads, normalize
from akidb_mlx.backends.mlx.layers import Embedding, QuantizedMatrix
from akidb_mlx.backends.mlx.operators import named
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation, rotation_table, tabulated_rotation
from akidb_mlx.backends.mlx.tracing import trace
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.backends.traced import Trace
from akidb_mlx.checkpoint.architectures.rotary import RotaryPositions
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.runtime.locks import device_lock

_APPROXIMATION = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class ExportPlan(ExecutionPlan):
    """The exact way of a CPU, with whole operators in place of their parts."""

    @property
    def attention(self) -> Attention:
        """Return the function that computes attention."""
        return _attention

    def activation(self, name: str) -> Activation:
        """Return the activation function that config.json calls `name`; see `ExecutionPlan.activation`."""
        super().activation(name)  # refuses an unknown one
        function = activations.NATIVE[name]
        if (approximation := _APPROXIMATION.get(name)) is None:
            return function
        return lambda x: named("Gelu", function(x), [x], approximate=approximation)

    def mask(self, visible: mx.array | None, bias: mx.array | None = None) -> mx.array | None:
        """Return the mask for `attention`: True where a key may be seen, or the bias of the scores."""
        return visible if bias is None else biased_mask(visible, bias)

    def rotation(self, length: int, positions: RotaryPositions, offset: int = 0) -> Rotation:
        """Return the rotation of `length` positions from `offset` on."""
        rotate = tabulated_rotation(length, positions, offset)
        table = rotation_table(length, positions, offset)
        return lambda x: named("RotaryEmbedding", rotate(x), [x, *table])


class _PlainWeights(WeightReader):
    """Reads weights without their packing, also those of tables."""

    def embedding(self, name: str, rows: int, size: int) -> Embedding:
        """Return a table of vectors."""
        table = self._matrix(name, rows, size)
        plain = table.dequantize() if isinstance(table, QuantizedMatrix) else table
        return Embedding(self._hand_out(plain.astype(self._plan.dtype)))


def trace_model(checkpoint: Checkpoint, *, pooled: bool, normalized: bool) -> Trace:
    """Return the computation of a model of one encoder, in float32.

    Its inputs are ids (batch, length) and lengths (batch,), both int32. Its output is a vector for each text, or, if
    not `pooled`, for each token; `normalized` divides it by its length.

    Raises:
        ModelLoadError: the checkpoint does not fit its configuration, or has no single graph.
    """
    plan = ExportPlan(mx.Device(mx.cpu), mx.float32, exact=True, token_budget=1, lanes=1)
    with device_lock, mx.stream(mx.cpu):
        weights = _PlainWeights(checkpoint, plan)
        encoder = build_encoder(checkpoint, weights, plan)
        head = next(iter(build_heads(checkpoint, weights, plan, encoder.hidden_size).values()))
        weights.check_complete()
    weights.evaluate()

    def compute(ids: mx.array, lengths: mx.array) -> Sequence[mx.array]:
        batch = TokenBatch(ids, lengths, padded=True)
        vectors = head(encoder, batch) if pooled else encoder(batch)
        return [normalize(vectors) if normalized else vectors]

    with device_lock, mx.stream(mx.cpu):
        return trace(compute, _inputs)


def _inputs(batch: int, length: int) -> Sequence[mx.array]:
    return mx.zeros((batch, length), mx.int32), mx.zeros((batch,), mx.int32)


def _attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    result = fused_attention(queries, keys, values, scale, mask)
    causal = isinstance(mask, str)
    masks = [mask] if isinstance(mask, mx.array) else []
    return named("Attention", result, [queries, keys, values, *masks], scale=scale, is_causal=int(causal))
