"""Gemma 3 (Gemma Team 2025) as EmbeddingGemma uses it: every token sees both sides, in most layers within a window."""

from __future__ import annotations

import math

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedMLP, NormReader, RotaryAttention
from akidb_mlx.backends.mlx.layers import at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.config import LayerType
from akidb_mlx.checkpoint.architectures.gemma3 import Gemma3Config


class Gemma3:
    """A bidirectional Gemma 3 encoder."""

    def __init__(self, args: Gemma3Config, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = NormReader(weights, args.rms_norm_eps, plan.exact, offset=1.0)
        self.hidden_size = args.hidden_size
        self._plan = plan
        self._types = args.types
        self._positions = args.rotations
        # Bidirectional: half of the configured window on each side (transformers' Gemma3TextConfig).
        self._reach = args.sliding_window // 2 + 1
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        self._layers = [_Layer(f"layers.{i}", args, norm, plan) for i in range(args.layers)]
        self._norm = norm("norm", args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        length = batch.ids.shape[1]
        rotations = {kind: self._plan.rotation(length, positions) for kind, positions in self._positions.items()}
        masks = {
            kind: None if visible is None else self._plan.mask(visible) for kind, visible in self._masks(batch).items()
        }
        x = self._words(batch.ids) * math.sqrt(self.hidden_size)
        for kind, layer in zip(self._types, self._layers, strict=True):
            x = layer(x, rotations[kind], masks[kind])
        return self._norm(x if token_positions is None else at_positions(x, token_positions))

    def _masks(self, batch: TokenBatch) -> dict[LayerType, mx.array | None]:
        """Return for each layer type an array that is True where a query sees a key; None where it sees all."""
        length = batch.ids.shape[1]
        full = batch.mask()[:, None, None, :] if batch.padded else None
        if length <= self._reach:
            return {"full_attention": full, "sliding_attention": full}
        positions = mx.arange(length)
        distance = mx.abs(positions[:, None] - positions)
        sliding = (distance < self._reach)[None, None]
        if full is not None:
            # Padding far from the text would see nothing, and its softmax would not be a number: let it see itself.
            sliding = (sliding & full) | (distance == 0)
        return {"full_attention": full, "sliding_attention": sliding}


class _Layer:
    """Attention and MLP, each normalised before and after and added to its input."""

    def __init__(self, name: str, args: Gemma3Config, norm: NormReader, plan: ExecutionPlan) -> None:
        weights, size = norm.weights, args.hidden_size
        self._before_attention = norm(f"{name}.input_layernorm", size)
        self._attention = RotaryAttention(
            weights, f"{name}.self_attn", args, norm, scale=args.query_pre_attn_scalar**-0.5, plan=plan
        )
        self._after_attention = norm(f"{name}.post_attention_layernorm", size)
        self._before_mlp = norm(f"{name}.pre_feedforward_layernorm", size)
        self._mlp = GatedMLP(weights, f"{name}.mlp", args, plan.activation(args.hidden_activation))
        self._after_mlp = norm(f"{name}.post_feedforward_layernorm", size)

    def __call__(self, x: mx.array, rotate: Rotation, mask: mx.array | None) -> mx.array:
        attended, _ = self._attention(self._before_attention(x), rotate, mask)
        x = x + self._after_attention(attended)
        return x + self._after_mlp(self._mlp(self._before_mlp(x)))
