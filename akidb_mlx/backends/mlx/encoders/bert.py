"""BERT (Devlin et al. 2019), and RoBERTa and DistilBERT, which differ in names, positions and token types only."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import LayerNormReader, SelfAttention
from akidb_mlx.backends.mlx.layers import at_positions
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.bert import BertConfig, RobertaConfig
from akidb_mlx.errors import ModelLoadError


class Bert:
    """A BERT encoder."""

    def __init__(self, args: BertConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        if args.hidden_size % args.heads:
            raise ModelLoadError(f"config.json: {args.heads} heads do not divide hidden_size {args.hidden_size}")
        size = args.hidden_size
        self.hidden_size = size
        self._plan = plan
        self._padding_id = args.pad_token_id if isinstance(args, RobertaConfig) else None
        self._words = weights.embedding("embeddings.word_embeddings", args.vocab_size, size)
        self._positions = weights.embedding("embeddings.position_embeddings", args.max_position_embeddings, size)
        self._types = (
            weights.embedding("embeddings.token_type_embeddings", args.type_vocab_size, size)
            if args.type_vocab_size
            else None
        )
        norm = LayerNormReader(weights, args.layer_norm_eps, plan.exact)
        self._norm = norm("embeddings.LayerNorm", size)
        self._layers = [_Layer(f"encoder.layer.{i}", args, norm, plan) for i in range(args.layers)]

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        x = self._words(batch.ids) + self._positions(self._position_ids(batch.ids))
        if self._types is not None:
            x = x + self._types(batch.type_ids())
        x = self._norm(x)
        mask = self._mask(batch)
        for layer in self._layers[:-1]:
            x = layer(x, mask)
        return self._layers[-1](x, mask, token_positions)

    def _mask(self, batch: TokenBatch) -> mx.array | None:
        """Return the mask of all layers."""
        return self._plan.mask(batch.mask()[:, None, None, :] if batch.padded else None)

    def _position_ids(self, ids: mx.array) -> mx.array:
        if self._padding_id is None:
            return mx.arange(ids.shape[1])
        # RoBERTa counts from its padding id plus 1, and does not count tokens that are the padding token.
        counted = (ids != self._padding_id).astype(mx.int32)
        return mx.cumsum(counted, axis=1) * counted + self._padding_id


class _Layer:
    """Self-attention and a two-layer MLP, each added to its input and normalised."""

    def __init__(self, name: str, args: BertConfig, norm: LayerNormReader, plan: ExecutionPlan) -> None:
        weights, size = norm.weights, args.hidden_size
        projections = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._attention = SelfAttention(
            weights.fused_linear(projections, [size] * 3, size, bias=True),
            weights.linear(f"{name}.attention.output.dense", size, size, bias=True),
            args.heads,
            plan,
        )
        self._attention_norm = norm(f"{name}.attention.output.LayerNorm", size)
        self._up = weights.linear(f"{name}.intermediate.dense", args.intermediate_size, size, bias=True)
        self._activation = plan.activation(args.hidden_act)
        self._down = weights.linear(f"{name}.output.dense", size, args.intermediate_size, bias=True)
        self._norm = norm(f"{name}.output.LayerNorm", size)

    def __call__(self, x: mx.array, mask: mx.array | None, token_positions: mx.array | None = None) -> mx.array:
        attended = self._attention(x, mask, token_positions=token_positions)
        x = self._attention_norm((x if token_positions is None else at_positions(x, token_positions)) + attended)
        return self._norm(x + self._down(self._activation(self._up(x))))
