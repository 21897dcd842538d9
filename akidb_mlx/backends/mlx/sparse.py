"""The heads of sparse models: a weight for each token of the vocabulary, most of them zero."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx.activations import relu
from akidb_mlx.backends.mlx.encoders import Encoder, TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import LayerNormReader
from akidb_mlx.backends.mlx.head import RaggedHead
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.sparse_head import MaskedLayers, Splade, TokenWeights
from akidb_mlx.vectors import SPARSE

# Most logits that are held at once: those of all tokens of a batch would take gigabytes on a GPU.
_MAX_LOGITS = 1 << 24


class SpladeHead(RaggedHead):
    """A head for masked words and the pooling of its logits (Formal et al. 2021, SPLADE v2)."""

    def __init__(self, head: Splade, hidden_size: int, weights: WeightReader, plan: ExecutionPlan) -> None:
        """Ask for the layers, with arrays that are still lazy."""
        self.dimension = head.layers.vocabulary
        self._head = _MaskedHead(head.layers, hidden_size, weights, plan)
        self._sums, self._logarithms = head.strategy == "sum", head.logarithms

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, vocabulary) float32.

        They are sums of the tokens' weights, or else their largest logits: the weight grows with the logit, so that it
        is computed for those only, in `rows`.
        """
        hidden = self._head.transform(encoder(batch))
        counts = batch.mask()[:, :, None] if batch.padded else None
        if counts is not None and not self._sums:
            hidden = mx.where(counts, hidden, hidden[:, :1])  # a token that is there twice changes no maximum
        rows, length = batch.ids.shape
        step = max(1, _MAX_LOGITS // (rows * self.dimension))
        pooled: mx.array | None = None
        for start in range(0, length, step):
            logits = self._head.logits(hidden[:, start : start + step])
            if self._sums:
                block = self._add_up(logits, None if counts is None else counts[:, start : start + step])
                pooled = block if pooled is None else pooled + block
            else:
                block = logits.max(axis=1)
                pooled = block if pooled is None else mx.maximum(pooled, block)
        assert pooled is not None
        pooled = pooled.astype(mx.float32)
        # A text's tokens have the same bias, so that the largest logit is found without it.
        return pooled if self._sums else self._head.add_bias(pooled)

    def _add_up(self, logits: mx.array, counts: mx.array | None) -> mx.array:
        """Return (batch, vocabulary), the sums of the weights of the tokens that count."""
        weights = relu(self._head.add_bias(logits).astype(mx.float32))
        for _ in range(self._logarithms):
            weights = mx.log1p(weights)
        return (weights if counts is None else mx.where(counts, weights, 0)).sum(axis=1)

    def rows(self, output: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the weights above zero of each text; what is not a number is among them, to be found."""
        rows = [sparse_row(row, ~(row <= 0)) for row in output]
        if not self._sums:
            for row in rows:
                for _ in range(self._logarithms):
                    row["value"] = np.log1p(row["value"])
        return rows


class _MaskedHead:
    """The layers that make a logit for each token of the vocabulary.

    Attributes:
        logits: maps (batch, length, hidden size), once transformed, to logits without their bias.
    """

    def __init__(self, layers: MaskedLayers, hidden_size: int, weights: WeightReader, plan: ExecutionPlan) -> None:
        bias = weights.has(f"{layers.dense}.bias")
        self._dense = weights.linear(layers.dense, hidden_size, hidden_size, bias=bias)
        self._activation = plan.activation(layers.activation)
        norm = LayerNormReader(weights, layers.eps, plan.exact, bias=weights.has(f"{layers.norm}.bias"))
        self._norm = norm(layers.norm, hidden_size)
        self.logits = weights.tied_linear(layers.output, layers.vocabulary, hidden_size)
        self._bias = None if layers.output_bias is None else weights.vector(layers.output_bias, layers.vocabulary)
        self._dtype = plan.dtype

    def transform(self, hidden: mx.array) -> mx.array:
        """Map (batch, length, hidden size) to the same shape."""
        return self._norm(self._activation(self._dense(hidden.astype(self._dtype))))

    def add_bias(self, logits: mx.array) -> mx.array:
        """Add the bias of each token of the vocabulary (last axis)."""
        return logits if self._bias is None else logits + self._bias


class TokenWeightsHead(RaggedHead):
    """A fixed weight for each token that a text holds."""

    def __init__(self, head: TokenWeights, weights: WeightReader) -> None:
        """Ask for the weights, with arrays that are still lazy."""
        self.dimension = head.vocabulary
        self._weights = weights.vector(head.weight, head.vocabulary)

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Return (batch, vocabulary) float32; the encoder does not run."""
        del encoder
        rows = mx.arange(batch.ids.shape[0])[:, None]
        present = mx.zeros((batch.ids.shape[0], self.dimension))
        present = present.at[rows, batch.ids].maximum(batch.mask().astype(mx.float32))
        return present * self._weights.astype(mx.float32)

    def rows(self, output: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the weights of each text that are not zero."""
        return [sparse_row(row, row != 0) for row in output]


def sparse_row(row: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the chosen values of a row with their indices."""
    indices = np.flatnonzero(chosen)
    found = np.empty(len(indices), SPARSE)
    found["index"], found["value"] = indices, row[indices]
    return found


def build_sparse_heads(
    checkpoint: Checkpoint, hidden_size: int, weights: WeightReader, plan: ExecutionPlan
) -> dict[str, SpladeHead | TokenWeightsHead]:
    """Build the head of each route of a sparse model, with arrays that are still lazy."""
    assert checkpoint.sparse is not None
    return {
        route: SpladeHead(head, hidden_size, weights, plan)
        if isinstance(head, Splade)
        else TokenWeightsHead(head, weights)
        for route, head in checkpoint.sparse.items()
    }
