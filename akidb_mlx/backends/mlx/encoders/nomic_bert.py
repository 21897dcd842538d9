"""NomicBERT (Nussbaum et al. 2024) and GTE (Zhang et al. 2024): BERT with rotary positions and gated MLPs.

They differ in biases, sizes and the names of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedLinearUnit, LayerNormReader, SelfAttention
from akidb_mlx.backends.mlx.layers import Linear, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.nomic_bert import RotaryBertConfig


class NomicBert:
    """A NomicBERT or GTE encoder."""

    def __init__(self, args: RotaryBertConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = LayerNormReader(weights, args.layer_norm_eps, plan.exact)
        size = args.hidden_size
        self.hidden_size = size
        self._plan = plan
        self._positions = args.rotations["full_attention"]
        self._words = weights.embedding("embeddings.word_embeddings", args.vocab_size, size)
        types = args.type_vocab_size
        self._types = weights.embedding("embeddings.token_type_embeddings", types, size) if types else None
        self._norm = norm("embeddings.LayerNorm", size)
        self._layers = [_Layer(f"layers.{i}", args, norm, plan) for i in range(args.layers)]

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        x = self._words(batch.ids)
        if self._types is not None:
            x = x + self._types(batch.type_ids())
        x = self._norm(x)
        rotate = self._plan.rotation(batch.ids.shape[1], self._positions)
        mask = self._plan.mask(batch.mask()[:, None, None, :] if batch.padded else None)
        for layer in self._layers[:-1]:
            x = layer(x, rotate, mask)
        return self._layers[-1](x, rotate, mask, token_positions)


class _Layer:
    """Attention and MLP, each added to its input and normalised."""

    def __init__(self, name: str, args: RotaryBertConfig, norm: LayerNormReader, plan: ExecutionPlan) -> None:
        weights, size, width = norm.weights, args.hidden_size, args.intermediate_size
        heads_size, bias = args.heads * args.head_size, args.attention_bias
        self._attention = SelfAttention(
            _read_joined(
                weights, f"{name}.self_attn", "qkv_proj", ("q_proj", "k_proj", "v_proj"), heads_size, size, bias
            ),
            weights.linear(f"{name}.self_attn.o_proj", size, heads_size, bias),
            args.heads,
            plan,
        )
        self._attention_norm = norm(f"{name}.post_attention_layernorm", size)
        self._mlp = GatedLinearUnit(
            _read_joined(weights, f"{name}.mlp", "up_gate_proj", ("up_proj", "gate_proj"), width, size),
            weights.linear(f"{name}.mlp.down_proj", size, width, args.down_bias),
            plan.activation(args.hidden_act),
            gate_first=False,
        )
        self._norm = norm(f"{name}.post_mlp_layernorm", size)

    def __call__(
        self, x: mx.array, rotate: Rotation, mask: mx.array | None, token_positions: mx.array | None = None
    ) -> mx.array:
        attended = self._attention(x, mask, rotate, token_positions)
        x = self._attention_norm((x if token_positions is None else at_positions(x, token_positions)) + attended)
        return self._norm(x + self._mlp(x))


def _read_joined(
    weights: WeightReader, name: str, joined: str, parts: Sequence[str], outputs: int, inputs: int, bias: bool = False
) -> Linear:
    """Return linear layers on the same input as one, which may be stored as one or apart."""
    if weights.has(f"{name}.{joined}.weight"):
        return weights.linear(f"{name}.{joined}", len(parts) * outputs, inputs, bias)
    return weights.fused_linear([f"{name}.{part}" for part in parts], [outputs] * len(parts), inputs, bias)
