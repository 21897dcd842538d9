"""Gemma 3 (Gemma Team 2025) as an encoder: most layers see a window only.

In EmbeddingGemma every token sees both sides, in others only those before it.
"""

from __future__ import annotations

import math

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedMLP, NormReader, RotaryAttention
from akidb_mlx.backends.mlx.encoders.windows import layer_masks
from akidb_mlx.backends.mlx.layers import RMSNorm, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.decoder import DecoderConfig
from akidb_mlx.checkpoint.architectures.gemma3 import Gemma3Config


class Gemma3:
    """A Gemma 3 encoder, causal or not."""

    def __init__(self, args: Gemma3Config, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = NormReader(weights, args.rms_norm_eps, plan.exact, offset=1.0)
        self.hidden_size = args.hidden_size
        self._plan = plan
        self._types = args.types
        self._positions = args.rotations
        self._reach, self._causal = args.reach, args.causal
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        activation, scale = plan.activation(args.hidden_act), args.query_pre_attn_scalar**-0.5
        self._layers = [Layer(f"layers.{i}", args, norm, activation, scale, plan) for i in range(args.layers)]
        self._norm = norm("norm", args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        length = batch.ids.shape[1]
        rotations = {kind: self._plan.rotation(length, positions) for kind, positions in self._positions.items()}
        masks = layer_masks(batch, self._plan, self._reach, self._causal)
        x = self._words(batch.ids) * math.sqrt(self.hidden_size)
        for kind, layer in zip(self._types, self._layers, strict=True):
            x = layer(x, rotations[kind], masks[kind])
        return self._norm(x if token_positions is None else at_positions(x, token_positions))


class Layer:
    """Attention and MLP, each normalised before and after and added to its input."""

    def __init__(
        self,
        name: str,
        args: DecoderConfig,
        norm: NormReader,
        activation: Activation,
        scale: float,
        plan: ExecutionPlan,
        value_norm: RMSNorm | None = None,
    ) -> None:
        weights, size = norm.weights, args.hidden_size
        self._before_attention = norm(f"{name}.input_layernorm", size)
        self._attention = RotaryAttention(weights, f"{name}.self_attn", args, norm, scale, plan, value_norm)
        self._after_attention = norm(f"{name}.post_attention_layernorm", size)
        self._before_mlp = norm(f"{name}.pre_feedforward_layernorm", size)
        self._mlp = GatedMLP(weights, f"{name}.mlp", args, activation)
        self._after_mlp = norm(f"{name}.post_feedforward_layernorm", size)

    def __call__(self, x: mx.array, rotate: Rotation, mask: Mask) -> mx.array:
        """Map (batch, length, hidden) to the same shape."""
        attended, _ = self._attention(self._before_attention(x), rotate, mask)
        x = x + self._after_attention(attended)
        return x + self._after_mlp(self._mlp(self._before_mlp(x)))
