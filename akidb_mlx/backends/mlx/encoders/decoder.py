"""Decoders as encoders: Llama (Touvron et al. 2023) and its kin, without the layer that gives logits.

Mistral, Ministral 3, Qwen2, Qwen3 and EuroBERT differ in few things, which their configurations say: biases, norms of
queries and keys, windows, and whether a token sees those after it.
"""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.encoders import Prefix, TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import GatedMLP, KeysAndValues, NormReader, RotaryAttention
from akidb_mlx.backends.mlx.encoders.windows import layer_masks, mask_of_one
from akidb_mlx.backends.mlx.layers import Linear, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.decoder import DecoderConfig


class Decoder:
    """Token embeddings, layers and a last norm, with a linear layer after it where the configuration has one."""

    def __init__(self, args: DecoderConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = NormReader(weights, args.rms_norm_eps, plan.exact)
        self.hidden_size = args.hidden_size
        self.causal = args.causal
        self._plan = plan
        self._types, self._reach = args.types, args.reach
        # One rotation for all layers: in these models, layers with a window have no base of their own.
        self._positions, self._query_growth = args.rotations["full_attention"], args.query_growth
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        self._layers = [_Layer(f"layers.{i}", args, norm, plan) for i in range(args.layers)]
        self._norm = norm("norm", args.hidden_size)
        self._head: Linear | None = None
        if args.head is not None:
            if weights.has(f"{args.head}.weight"):
                self.hidden_size = weights.rows(args.head)
            self._head = weights.linear(args.head, self.hidden_size, args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`. In a causal model no token of a text sees the padding on its right."""
        offset = batch.prefix.length if batch.prefix else 0
        past = batch.prefix.layers if batch.prefix else [None] * len(self._layers)
        rotate = self._rotations(batch.ids.shape[1], offset)
        masks = layer_masks(batch, self._plan, self._reach, self.causal)
        x = self._words(batch.ids)
        for kind, layer, keys_and_values in zip(self._types[:-1], self._layers[:-1], past, strict=False):
            x, _ = layer(x, rotate, masks[kind], keys_and_values)
        mask = masks[self._types[-1]]
        if token_positions is not None:
            mask = mask_of_one(mask, token_positions, offset, batch.ids.shape[1], self._plan)
        x, _ = self._layers[-1](x, rotate, mask, past[-1], token_positions)
        x = self._norm(x)
        return x if self._head is None else self._head(x)

    def prefix(self, ids: mx.array) -> Prefix:
        """Compute the keys and values of every layer for tokens (1, length)."""
        length = ids.shape[1]
        rotate = self._rotations(length)
        masks = layer_masks(TokenBatch(ids, mx.array([length]), False), self._plan, self._reach, self.causal)
        x = self._words(ids)
        layers = []
        for kind, layer in zip(self._types, self._layers, strict=True):
            x, keys_and_values = layer(x, rotate, masks[kind])
            layers.append(keys_and_values)
        return Prefix(length, layers)

    def _rotations(self, length: int, offset: int = 0) -> tuple[Rotation, Rotation]:
        """Return the rotations of queries and of keys; those of queries may grow with their position."""
        rotate = self._plan.rotation(length, self._positions, offset)
        if self._query_growth is None or offset + length <= self._query_growth[1]:
            return rotate, rotate
        growth, step = self._query_growth
        steps = mx.arange(offset, offset + length)[:, None] // step
        factors = (1 + growth * mx.log1p(steps.astype(mx.float32))).astype(self._plan.dtype)
        return lambda queries: rotate(queries) * factors, rotate


class _Layer:
    """Attention and MLP, each computed from its normalised input and added to it."""

    def __init__(self, name: str, args: DecoderConfig, norm: NormReader, plan: ExecutionPlan) -> None:
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
        rotate: tuple[Rotation, Rotation],
        mask: Mask,
        past: KeysAndValues | None = None,
        token_positions: mx.array | None = None,
    ) -> tuple[mx.array, KeysAndValues]:
        attended, keys_and_values = self._attention(self._attention_norm(x), rotate, mask, past, token_positions)
        x = (x if token_positions is None else at_positions(x, token_positions)) + attended
        return x + self._mlp(self._mlp_norm(x)), keys_and_values
