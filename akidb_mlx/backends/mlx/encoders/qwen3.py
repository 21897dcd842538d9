"""Qwen3 (Yang et al. 2025) as an encoder: the causal model without its output layer."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.encoders import Prefix, TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedMLP, KeysAndValues, NormReader, RotaryAttention
from akidb_mlx.backends.mlx.layers import at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.qwen3 import Qwen3Config


class Qwen3:
    """A causal Qwen3 encoder: each token sees itself and the tokens before it."""

    def __init__(self, args: Qwen3Config, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = NormReader(weights, args.rms_norm_eps, plan.exact)
        self.hidden_size = args.hidden_size
        self._plan = plan
        self._positions = args.rotations["full_attention"]
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        self._layers = [_Layer(f"layers.{i}", args, norm, plan) for i in range(args.layers)]
        self._norm = norm("norm", args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`. No token of a text sees the padding on its right."""
        offset = batch.prefix.length if batch.prefix else 0
        past = batch.prefix.layers if batch.prefix else [None] * len(self._layers)
        length = batch.ids.shape[1]
        rotate = self._plan.rotation(length, self._positions, offset)
        x = self._words(batch.ids)
        for layer, keys_and_values in zip(self._layers[:-1], past, strict=False):
            x, _ = layer(x, rotate, "causal", keys_and_values)
        mask: Mask = "causal"
        if token_positions is not None:
            visible = mx.arange(offset + length) <= offset + token_positions[:, None]
            mask = self._plan.mask(visible[:, None, None])
        x, _ = self._layers[-1](x, rotate, mask, past[-1], token_positions)
        return self._norm(x)

    def prefix(self, ids: mx.array) -> Prefix:
        """Compute the keys and values of every layer for tokens (1, length)."""
        rotate = self._plan.rotation(ids.shape[1], self._positions)
        x = self._words(ids)
        layers = []
        for layer in self._layers:
            x, keys_and_values = layer(x, rotate, "causal")
            layers.append(keys_and_values)
        return Prefix(ids.shape[1], layers)


class _Layer:
    """Attention and MLP, each computed from its normalised input and added to it."""

    def __init__(self, name: str, args: Qwen3Config, norm: NormReader, plan: ExecutionPlan) -> None:
        weights, size = norm.weights, args.hidden_size
        self._attention_norm = norm(f"{name}.input_layernorm", size)
        self._attention = RotaryAttention(
            weights, f"{name}.self_attn", args, norm, scale=args.head_dim**-0.5, plan=plan
        )
        self._mlp_norm = norm(f"{name}.post_attention_layernorm", size)
        self._mlp = GatedMLP(weights, f"{name}.mlp", args, plan.activation(args.hidden_act))

    def __call__(
        self,
        x: mx.array,
        rotate: Rotation,
        mask: Mask,
        past: KeysAndValues | None = None,
        token_positions: mx.array | None = None,
    ) -> tuple[mx.array, KeysAndValues]:
        attended, keys_and_values = self._attention(self._attention_norm(x), rotate, mask, past, token_positions)
        x = (x if token_positions is None else at_positions(x, token_positions)) + attended
        return x + self._mlp(self._mlp_norm(x)), keys_and_values
