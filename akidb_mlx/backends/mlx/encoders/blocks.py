"""The blocks that Qwen3 and Gemma 3 share: rotary attention and gated MLP."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.layers import Linear, RMSNorm, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.decoder import DecoderConfig

# Of one layer, each (batch, key heads, length, head size).
KeysAndValues = tuple[mx.array, mx.array]


@dataclass(frozen=True)
class NormReader:
    """Reads RMS norms; `offset` is added to their weights (Gemma stores weight - 1)."""

    weights: WeightReader
    eps: float
    exact: bool
    offset: float = 0.0

    def __call__(self, name: str, size: int) -> RMSNorm:
        """Return the norm stored under `name`, over `size` values."""
        return RMSNorm(self.weights.vector(f"{name}.weight", size, self.offset), self.eps, self.exact)


class RotaryAttention:
    """Grouped-query attention whose queries and keys are normalised, then rotated by their positions.

    Args:
        weights: reads the layer.
        name: beginning of its tensors' names.
        args: the sizes.
        norm: reads the norms of a query head and a key head.
        scale: factor of the products of queries and keys.
        plan: decides how attention is computed.
        value_norm: the norm of a value head, where values are normalised too.
    """

    def __init__(
        self,
        weights: WeightReader,
        name: str,
        args: DecoderConfig,
        norm: NormReader,
        scale: float,
        plan: ExecutionPlan,
        value_norm: RMSNorm | None = None,
    ) -> None:
        self._attention = plan.attention
        self._heads, self._key_heads = args.heads, args.key_heads
        self._scale = scale
        query_size, key_size = args.heads * args.head_dim, args.key_heads * args.head_dim
        # One product instead of three: the outputs of the query heads, then of the key heads, then of the value heads.
        projections = [f"{name}.{part}_proj" for part in "qkv"]
        sizes = [query_size, key_size, key_size]
        self._query_key_value = weights.fused_linear(projections, sizes, args.hidden_size, bias=args.attention_bias)
        self._output = weights.linear(f"{name}.o_proj", args.hidden_size, query_size, bias=args.attention_bias)
        self._query_norm = norm(f"{name}.q_norm", args.head_dim)
        self._key_norm = norm(f"{name}.k_norm", args.head_dim)
        self._value_norm = value_norm

    def __call__(
        self,
        x: mx.array,
        rotate: Rotation,
        mask: Mask,
        past: KeysAndValues | None = None,
        token_positions: mx.array | None = None,
    ) -> tuple[mx.array, KeysAndValues]:
        """Compute attention.

        Args:
            x: (batch, length, hidden).
            rotate: the rotation of their positions.
            mask: the keys that a query sees; see `attention.fused_attention`.
            past: keys and values of tokens before them, the same for all texts.
            token_positions: (batch,), for each text the position of the one query that is wanted; None for all.

        Returns:
            (batch, length, hidden), or (batch, 1, hidden) with `token_positions`; and the keys and values of `x`
            without those of the past.
        """
        batch, length, _ = x.shape
        joined = self._query_key_value(x).reshape(batch, length, self._heads + 2 * self._key_heads, -1).swapaxes(1, 2)
        queries, keys, values = mx.split(joined, [self._heads, self._heads + self._key_heads], axis=1)
        queries, keys = rotate(self._query_norm(queries)), rotate(self._key_norm(keys))
        values = values if self._value_norm is None else self._value_norm(values)
        new = keys, values
        if past is not None:
            keys, values = (
                mx.concatenate([mx.broadcast_to(earlier, (batch, *earlier.shape[1:])), later], axis=2)
                for earlier, later in zip(past, new, strict=True)
            )
        if token_positions is not None:
            queries = at_positions(queries, token_positions)
        attended = self._attention(queries, keys, values, self._scale, mask)
        return self._output(attended), new


class GatedMLP:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020); gate and up are one product, their outputs side by side."""

    def __init__(self, weights: WeightReader, name: str, args: DecoderConfig, activation: Activation) -> None:
        self._gate_up: Linear = weights.fused_linear(
            [f"{name}.gate_proj", f"{name}.up_proj"], [args.intermediate_size] * 2, args.hidden_size
        )
        self._down = weights.linear(f"{name}.down_proj", args.hidden_size, args.intermediate_size)
        self._activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., hidden) to the same shape."""
        gate, up = mx.split(self._gate_up(x), 2, axis=-1)
        return self._down(self._activation(gate) * up)
