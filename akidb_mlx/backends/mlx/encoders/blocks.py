"""The blocks that Qwen3 and Gemma 3 share: rotary attention and gated MLP."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from pydantic import Field, PositiveFloat

from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.device import ExecutionPlan, Rotation
from akidb_mlx.backends.mlx.encoders.config import EncoderConfig, LayerCount, Size
from akidb_mlx.backends.mlx.layers import Linear, RMSNorm, at_positions
from akidb_mlx.backends.mlx.weights import WeightReader

# Of one layer, each (batch, key heads, length, head size).
KeysAndValues = tuple[mx.array, mx.array]


class DecoderConfig(EncoderConfig):
    """The keys of config.json that both architectures have."""

    vocab_size: Size
    hidden_size: Size
    layers: LayerCount = Field(validation_alias="num_hidden_layers")
    heads: Size = Field(validation_alias="num_attention_heads")
    key_heads: Size = Field(validation_alias="num_key_value_heads")
    head_dim: Size
    intermediate_size: Size
    rms_norm_eps: PositiveFloat
    attention_bias: bool = False


@dataclass(frozen=True)
class NormReader:
    """Reads RMS norms; `offset` is added to their weights (Gemma stores weight - 1)."""

    weights: WeightReader
    eps: float
    exact: bool
    offset: float = 0.0

    def __call__(self, name: str, size: int) -> RMSNorm:
        """The norm stored under `name`, over `size` values."""
        return RMSNorm(self.weights.vector(f"{name}.weight", size, self.offset), self.eps, self.exact)


class RotaryAttention:
    """Grouped-query attention whose queries and keys are normalised, then rotated by their positions.

    Args:
        weights: where the layer is read from.
        name: what its tensors' names begin with.
        args: the sizes.
        norm: reads the norms of a query head and a key head.
        scale: factor of the products of queries and keys.
        plan: says how attention is computed.
    """

    def __init__(
        self,
        weights: WeightReader,
        name: str,
        args: DecoderConfig,
        norm: NormReader,
        scale: float,
        plan: ExecutionPlan,
    ) -> None:
        self._attention = plan.attention
        self._heads, self._key_heads = args.heads, args.key_heads
        self._scale = scale
        query_size, key_size = args.heads * args.head_dim, args.key_heads * args.head_dim
        projections = [f"{name}.{part}_proj" for part in "qkv"]
        sizes = [query_size, key_size, key_size]
        self._projection = weights.fused_linear(projections, sizes, args.hidden_size, bias=args.attention_bias)
        self._output = weights.linear(f"{name}.o_proj", args.hidden_size, query_size, bias=args.attention_bias)
        self._query_norm = norm(f"{name}.q_norm", args.head_dim)
        self._key_norm = norm(f"{name}.k_norm", args.head_dim)

    def __call__(
        self,
        x: mx.array,
        rotate: Rotation,
        mask: Mask,
        past: KeysAndValues | None = None,
        only: mx.array | None = None,
    ) -> tuple[mx.array, KeysAndValues]:
        """Mix the tokens.

        Args:
            x: (batch, length, hidden).
            rotate: the rotation of their positions.
            mask: what a query sees; see `attention.Attention`.
            past: keys and values of tokens before them, the same for all texts.
            only: (batch,) positions of the only queries that are wanted.

        Returns:
            (batch, length, hidden), or (batch, 1, hidden) with `only`; and the keys and values of `x` without the past.
        """
        batch, length, _ = x.shape
        joined = self._projection(x).reshape(batch, length, self._heads + 2 * self._key_heads, -1).swapaxes(1, 2)
        queries, keys, values = mx.split(joined, [self._heads, self._heads + self._key_heads], axis=1)
        queries, keys = rotate(self._query_norm(queries)), rotate(self._key_norm(keys))
        own = keys, values
        if past is not None:
            keys, values = (
                mx.concatenate([mx.broadcast_to(before, (batch, *before.shape[1:])), now], axis=2)
                for before, now in zip(past, own, strict=True)
            )
        if only is not None:
            queries = at_positions(queries, only)
        mixed = self._attention(queries, keys, values, self._scale, mask)
        return self._output(mixed), own


class GatedMLP:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, weights: WeightReader, name: str, args: DecoderConfig, activation: Activation) -> None:
        self._gate_up: Linear = weights.fused_linear(
            [f"{name}.gate_proj", f"{name}.up_proj"], [args.intermediate_size] * 2, args.hidden_size
        )
        self._down = weights.linear(f"{name}.down_proj", args.hidden_size, args.intermediate_size)
        self._activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        """(..., hidden) → the same shape."""
        gate, up = mx.split(self._gate_up(x), 2, axis=-1)
        return self._down(self._activation(gate) * up)
