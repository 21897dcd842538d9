"""The blocks that encoders share: norms, attention and gated MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.layers import LayerNorm, Linear, RMSNorm, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class LayerNormReader:
    """Reads layer norms, with or without `bias`."""

    weights: WeightReader
    eps: float
    exact: bool
    bias: bool = True

    def __call__(self, name: str, size: int) -> LayerNorm:
        """Return the norm stored under `name`, over `size` values."""
        weight = self.weights.vector(f"{name}.weight", size)
        bias = self.weights.vector(f"{name}.bias", size) if self.bias else None
        return LayerNorm(weight, bias, self.eps, self.exact)


class SelfAttention:
    """Attention of as many key heads as query heads, whose tokens see both sides.

    Args:
        query_key_value: one product for the outputs of all heads' queries, then of their keys, then of their values.
        output: maps the heads' results, side by side.
        heads: how many.
        plan: decides how attention is computed.
    """

    def __init__(self, query_key_value: Linear, output: Linear, heads: int, plan: ExecutionPlan) -> None:
        self._attention = plan.attention
        self._query_key_value, self._output, self._heads = query_key_value, output, heads

    def __call__(
        self,
        x: mx.array,
        mask: mx.array | None,
        rotate: Rotation | None = None,
        token_positions: mx.array | None = None,
    ) -> mx.array:
        """Compute attention.

        Args:
            x: (batch, length, hidden).
            mask: the keys that a query sees, as `plan.mask` gives them; None for all.
            rotate: the rotation of queries and keys by their positions; None for none.
            token_positions: (batch,), for each text the position of the one query that is wanted; None for all.

        Returns:
            (batch, length, hidden), or (batch, 1, hidden) with `token_positions`.
        """
        batch, length, _ = x.shape
        joined = self._query_key_value(x).reshape(batch, length, 3 * self._heads, -1).swapaxes(1, 2)
        if rotate is not None:
            turned, values = mx.split(joined, [2 * self._heads], axis=1)
            queries, keys = mx.split(rotate(turned), 2, axis=1)
        else:
            queries, keys, values = mx.split(joined, 3, axis=1)
        if token_positions is not None:
            queries, mask = at_positions(queries, token_positions), mask_at(mask, token_positions)
        scale = float(queries.shape[-1] ** -0.5)
        return self._output(self._attention(queries, keys, values, scale, mask))


def mask_at(mask: mx.array | None, positions: mx.array) -> mx.array | None:
    """Return the part of a mask that is for the one query of each text at its position (batch,)."""
    return mask if mask is None or mask.shape[2] == 1 else at_positions(mask, positions)


class RotaryAttention:
    """Grouped-query attention whose queries and keys are rotated by their positions, in some models normalised first.

    Args:
        weights: reads the layer.
        name: beginning of its tensors' names.
        args: the sizes.
        norm: reads the norms of a query head and a key head, where `args.head_norms` says that there are.
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
        input_biases, output_bias = args.attention_biases
        self._query_key_value = weights.fused_linear(projections, sizes, args.hidden_size, bias=input_biases)
        self._output = weights.linear(f"{name}.o_proj", args.hidden_size, query_size, bias=output_bias)
        self._query_norm = norm(f"{name}.q_norm", args.head_dim) if args.head_norms else None
        self._key_norm = norm(f"{name}.k_norm", args.head_dim) if args.head_norms else None
        self._value_norm = value_norm

    def __call__(
        self,
        x: mx.array,
        rotate: Rotation | tuple[Rotation, Rotation],
        mask: Mask,
        past: KeysAndValues | None = None,
        token_positions: mx.array | None = None,
    ) -> tuple[mx.array, KeysAndValues]:
        """Compute attention.

        Args:
            x: (batch, length, hidden).
            rotate: the rotation of their positions; two where those of queries and of keys differ.
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
        if self._query_norm is not None and self._key_norm is not None:
            queries, keys = self._query_norm(queries), self._key_norm(keys)
        rotate_queries, rotate_keys = rotate if isinstance(rotate, tuple) else (rotate, rotate)
        queries, keys = rotate_queries(queries), rotate_keys(keys)
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


class GatedLinearUnit:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020).

    Args:
        gate_up: one product for both, their outputs side by side.
        down: maps the result back.
        activation: of the gate.
        gate_first: whether the gate is the first half of the product.
    """

    def __init__(self, gate_up: Linear, down: Linear, activation: Activation, gate_first: bool = True) -> None:
        self._gate_up, self._down, self._activation, self._gate_first = gate_up, down, activation, gate_first

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., hidden) to the same shape."""
        halves = mx.split(self._gate_up(x), 2, axis=-1)
        gate, up = halves if self._gate_first else halves[::-1]
        return self._down(self._activation(gate) * up)


class GatedMLP(GatedLinearUnit):
    """A gated linear unit whose gate and up are stored apart, as the decoders' are."""

    def __init__(self, weights: WeightReader, name: str, args: DecoderConfig, activation: Activation) -> None:
        size, width = args.hidden_size, args.intermediate_size
        gate_up = weights.fused_linear(
            [f"{name}.gate_proj", f"{name}.up_proj"], [width] * 2, size, bias=args.mlp_biases
        )
        super().__init__(gate_up, weights.linear(f"{name}.down_proj", size, width, bias=args.mlp_biases), activation)
