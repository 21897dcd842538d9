"""EmbeddingGemma 2's text tower (Google 2026): Gemma 3's layers, each followed by a third residual.

That residual mixes in per-layer embeddings, which are projections of the token embeddings, one for each layer.
"""

from __future__ import annotations

import math

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import NormReader
from akidb_mlx.backends.mlx.encoders.gemma3 import Layer
from akidb_mlx.backends.mlx.encoders.windows import visible_keys
from akidb_mlx.backends.mlx.layers import Linear, RMSNorm, at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.rotary import Rotation
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.config import LayerType
from akidb_mlx.checkpoint.architectures.embedding_gemma2 import EmbeddingGemma2TextConfig

# Queries and keys are normalised, and their products taken as they are.
_SCALE = 1.0


class EmbeddingGemma2:
    """A bidirectional encoder whose layers have heads of two sizes, one for each type."""

    def __init__(self, args: EmbeddingGemma2TextConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        norm = NormReader(weights, args.rms_norm_eps, plan.exact)
        self.hidden_size = args.embedding_dim
        self._plan = plan
        self._types = args.types
        self._positions = args.rotations
        self._reach = args.sliding_window + 1  # a radius, inclusive
        self._placeholders, self._padding = args.placeholder_ids, args.pad_token_id
        self._scale = math.sqrt(args.hidden_size)
        self._words = weights.embedding("embed_tokens", args.vocab_size, args.hidden_size)
        per_layer_size = args.hidden_size_per_layer_input
        self._per_layer_projections = weights.split_linear(
            "ple.per_layer_model_projection", args.layers, per_layer_size, args.hidden_size
        )
        # The projections are scaled by 1 / √hidden before this norm; so is the square root of its epsilon instead.
        scaled_norm = NormReader(weights, args.rms_norm_eps * args.hidden_size, plan.exact)
        self._per_layer_norm = scaled_norm("ple.per_layer_projection_norm", per_layer_size)
        self._layers = [_Layer(f"layers.{i}", args, kind, norm, plan) for i, kind in enumerate(args.types)]
        self._norm = norm("norm", args.hidden_size)
        self._projection = weights.linear("embedding_projection", args.embedding_dim, args.hidden_size)

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        length = batch.ids.shape[1]
        rotations = {kind: self._plan.rotation(length, positions) for kind, positions in self._positions.items()}
        masks = {kind: self._plan.mask(visible) for kind, visible in visible_keys(batch, self._reach).items()}
        words = self._words(self._without_placeholders(batch.ids)) * self._scale
        x = words
        for kind, layer, project in zip(self._types, self._layers, self._per_layer_projections, strict=True):
            x = layer(x, self._per_layer_norm(project(words)), rotations[kind], masks[kind])
        return self._projection(self._norm(x if token_positions is None else at_positions(x, token_positions)))

    def _without_placeholders(self, ids: mx.array) -> mx.array:
        """Return the ids with padding in the places of images, videos and sounds, which a text can only spell."""
        for placeholder in self._placeholders:
            ids = mx.where(ids == placeholder, self._padding, ids)
        return ids


class _Layer:
    """A layer of Gemma 3 whose values are normalised too, then the per-layer embedding; the sum is scaled."""

    def __init__(
        self, name: str, args: EmbeddingGemma2TextConfig, kind: LayerType, norm: NormReader, plan: ExecutionPlan
    ) -> None:
        weights, size, per_layer_size = norm.weights, args.hidden_size, args.hidden_size_per_layer_input
        sized = args.for_type(kind)
        value_norm = RMSNorm(mx.ones((sized.head_dim,), plan.dtype), args.rms_norm_eps, plan.exact)
        self._activation: Activation = plan.activation(args.hidden_act)
        self._gemma3 = Layer(name, sized, norm, self._activation, _SCALE, plan, value_norm)
        self._gate: Linear = weights.linear(f"{name}.ple_block.per_layer_input_gate", per_layer_size, size)
        self._project: Linear = weights.linear(f"{name}.ple_block.per_layer_projection", size, per_layer_size)
        self._after_per_layer = norm(f"{name}.ple_block.post_per_layer_input_norm", size)
        self._scalar = weights.vector(f"{name}.layer_scalar", 1)

    def __call__(self, x: mx.array, per_layer: mx.array, rotate: Rotation, mask: mx.array | None) -> mx.array:
        x = self._gemma3(x, rotate, mask)
        mixed = self._project(self._activation(self._gate(x)) * per_layer)
        return (x + self._after_per_layer(mixed)) * self._scalar
