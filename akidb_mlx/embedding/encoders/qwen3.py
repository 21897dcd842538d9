"""Qwen3 (Yang et al. 2025) as an encoder: the causal model without its output layer."""

from __future__ import annotations

from typing import Any, Literal

import mlx.core as mx

from akidb_mlx.embedding.device import ExecutionPlan, Rotation
from akidb_mlx.embedding.encoders import TokenBatch
from akidb_mlx.embedding.encoders.blocks import DecoderConfig, GatedMLP, NormReader, RotaryAttention
from akidb_mlx.embedding.encoders.config import parse_config, rope_theta
from akidb_mlx.embedding.weights import WeightReader


class Qwen3Config(DecoderConfig):
    """The keys of config.json."""

    hidden_act: str = "silu"
    use_sliding_window: Literal[False] = False


class Qwen3:
    """Token ids → token vectors, each of which has seen itself and the tokens before it."""

    def __init__(self, config: dict[str, Any], weights: WeightReader, plan: ExecutionPlan) -> None:
        args = parse_config(Qwen3Config, config)
        norm = NormReader(weights, args.rms_norm_eps)
        self.hidden_size = args.hidden_size
        self._plan = plan
        self._head_dim = args.head_dim
        self._theta = rope_theta(config, "full_attention", default=1e6)
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        self._layers = [_Layer(f"layers.{i}", args, norm, plan) for i in range(args.layers)]
        self._norm = norm("norm", args.hidden_size)

    def __call__(self, batch: TokenBatch) -> mx.array:
        """(batch, length) → (batch, length, hidden_size). No token sees padding on its right, so no mask is needed."""
        rotate = self._plan.rotation(batch.ids.shape[1], self._head_dim, self._theta)
        x = self._words(batch.ids)
        for layer in self._layers:
            x = layer(x, rotate)
        return self._norm(x)


class _Layer:
    """Attention and MLP, each computed from its normalised input and added to it."""

    def __init__(self, name: str, args: Qwen3Config, norm: NormReader, plan: ExecutionPlan) -> None:
        weights = norm.weights
        self._attention_norm = norm(f"{name}.input_layernorm", args.hidden_size)
        self._attention = RotaryAttention(weights, f"{name}.self_attn", args, norm, scale=args.head_dim**-0.5)
        self._mlp_norm = norm(f"{name}.post_attention_layernorm", args.hidden_size)
        self._mlp = GatedMLP(weights, f"{name}.mlp", args, plan.activation(args.hidden_act))

    def __call__(self, x: mx.array, rotate: Rotation) -> mx.array:
        x = x + self._attention(self._attention_norm(x), rotate, "causal")
        return x + self._mlp(self._mlp_norm(x))
