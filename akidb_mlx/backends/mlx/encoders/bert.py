"""BERT (Devlin et al. 2019), and RoBERTa and DistilBERT, which differ in names, positions and token types only."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import mask_at
from akidb_mlx.backends.mlx.layers import LayerNorm, at_positions
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
        self._norm = _layer_norm(weights, "embeddings.LayerNorm", args, plan)
        self._layers = [_Layer(args, weights, plan, f"encoder.layer.{i}") for i in range(args.layers)]

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors; see `Encoder`."""
        x = self._words(batch.ids) + self._positions(self._position_ids(batch.ids))
        if self._types is not None:
            x = x + self._types(_type_ids(batch))
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

    def __init__(self, args: BertConfig, weights: WeightReader, plan: ExecutionPlan, name: str) -> None:
        size = args.hidden_size
        self._attention = plan.attention
        self._heads = args.heads
        self._scale = (size // args.heads) ** -0.5
        # One product instead of three: the outputs of all heads' queries, then of their keys, then of their values.
        projections = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._query_key_value = weights.fused_linear(projections, [size] * 3, size, bias=True)
        self._output = weights.linear(f"{name}.attention.output.dense", size, size, bias=True)
        self._attention_norm = _layer_norm(weights, f"{name}.attention.output.LayerNorm", args, plan)
        self._up = weights.linear(f"{name}.intermediate.dense", args.intermediate_size, size, bias=True)
        self._activation = plan.activation(args.hidden_act)
        self._down = weights.linear(f"{name}.output.dense", size, args.intermediate_size, bias=True)
        self._norm = _layer_norm(weights, f"{name}.output.LayerNorm", args, plan)

    def __call__(self, x: mx.array, mask: mx.array | None, token_positions: mx.array | None = None) -> mx.array:
        batch, length, _ = x.shape
        joined = self._query_key_value(x).reshape(batch, length, 3 * self._heads, -1).swapaxes(1, 2)
        queries, keys, values = mx.split(joined, 3, axis=1)
        if token_positions is not None:
            queries, x = at_positions(queries, token_positions), at_positions(x, token_positions)
            mask = mask_at(mask, token_positions)
        attended = self._attention(queries, keys, values, self._scale, mask)
        x = self._attention_norm(x + self._output(attended))
        return self._norm(x + self._down(self._activation(self._up(x))))


def _type_ids(batch: TokenBatch) -> mx.array:
    """Return the token types; one number where all tokens are of the first type, as in a single text."""
    if batch.segments is None:
        return mx.array([0])
    return (mx.arange(batch.ids.shape[1]) >= batch.segments[:, None]).astype(mx.int32)


def _layer_norm(weights: WeightReader, name: str, args: BertConfig, plan: ExecutionPlan) -> LayerNorm:
    weight, bias = (weights.vector(f"{name}.{part}", args.hidden_size) for part in ("weight", "bias"))
    return LayerNorm(weight, bias, args.layer_norm_eps, plan.exact)
