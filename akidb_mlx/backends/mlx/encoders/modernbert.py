"""ModernBERT (Warner et al. 2024): rotary positions, gated MLPs, and in most layers attention within a window."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedLinearUnit, LayerNormReader, SelfAttention
from akidb_mlx.backends.mlx.encoders.windows import visible_keys
from akidb_mlx.backends.mlx.layers import at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.modernbert import ModernBertConfig
from akidb_mlx.errors import ModelLoadError


class ModernBert:
    """A ModernBERT encoder."""

    def __init__(self, args: ModernBertConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        if args.hidden_size % args.heads:
            raise ModelLoadError(f"config.json: {args.heads} heads do not divide hidden_size {args.hidden_size}")
        norm = LayerNormReader(weights, args.norm_eps, plan.exact, bias=args.norm_bias)
        self.hidden_size = args.hidden_size
        self._plan = plan
        self._types = args.types
        self._positions = args.rotations
        # Half of the window on each side.
        self._reach = args.local_attention // 2 + 1
        self._words = weights.embedding("embeddings.tok_embeddings", args.vocab_size, args.hidden_size)
        self._norm = norm("embeddings.norm", args.hidden_size)
        self._layers = [_Layer(i, args, norm, plan) for i in range(args.layers)]
        self._final_norm = norm("final_norm", args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        length = batch.ids.shape[1]
        rotations = {kind: self._plan.rotation(length, positions) for kind, positions in self._positions.items()}
        masks = {kind: self._plan.mask(visible) for kind, visible in visible_keys(batch, self._reach).items()}
        x = self._norm(self._words(batch.ids))
        for kind, layer in zip(self._types[:-1], self._layers[:-1], strict=True):
            x = layer(x, rotations[kind], masks[kind])
        kind = self._types[-1]
        return self._final_norm(self._layers[-1](x, rotations[kind], masks[kind], token_positions))


class _Layer:
    """Attention and MLP, each computed from its normalised input and added to it."""

    def __init__(self, number: int, args: ModernBertConfig, norm: LayerNormReader, plan: ExecutionPlan) -> None:
        weights, size, width, name = norm.weights, args.hidden_size, args.intermediate_size, f"layers.{number}"
        # What the first layer reads is normalised already.
        self._attention_norm = norm(f"{name}.attn_norm", size) if number else None
        self._attention = SelfAttention(
            weights.linear(f"{name}.attn.Wqkv", 3 * size, size, args.attention_bias),
            weights.linear(f"{name}.attn.Wo", size, size, args.attention_bias),
            args.heads,
            plan,
        )
        self._mlp_norm = norm(f"{name}.mlp_norm", size)
        self._mlp = GatedLinearUnit(
            weights.linear(f"{name}.mlp.Wi", 2 * width, size, args.mlp_bias),
            weights.linear(f"{name}.mlp.Wo", size, width, args.mlp_bias),
            plan.activation(args.hidden_activation),
        )

    def __call__(
        self, x: mx.array, rotate: Rotation, mask: mx.array | None, token_positions: mx.array | None = None
    ) -> mx.array:
        normalised = x if self._attention_norm is None else self._attention_norm(x)
        attended = self._attention(normalised, mask, rotate, token_positions)
        x = (x if token_positions is None else at_positions(x, token_positions)) + attended
        return x + self._mlp(self._mlp_norm(x))
