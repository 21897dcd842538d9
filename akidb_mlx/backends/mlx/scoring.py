"""The heads of rerankers: from the vector of one token to the scores of a pair, before their activation."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx import activations
from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.encoders import Encoder, TokenBatch
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.architecture import ClassifierLayers
from akidb_mlx.checkpoint.checkpoint import Checkpoint

# A head computes one token of each pair, so these need not vectorise.
_ACTIVATIONS: dict[str, Activation] = {"tanh": mx.tanh, "relu": activations.relu}


class Classifier:
    """Two linear layers on the first token's vector, as in transformers' models for sequence classification."""

    def __init__(
        self, layers: ClassifierLayers, labels: int, hidden_size: int, weights: WeightReader, plan: ExecutionPlan
    ) -> None:
        self.dimension = labels
        self._dense = weights.linear(layers.dense, hidden_size, hidden_size, bias=True)
        self._activation = _ACTIVATIONS[layers.activation]
        self._output = weights.linear(layers.output, labels, hidden_size, bias=True)
        self._dtype = plan.dtype

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, labels) float32."""
        first = encoder(batch, mx.zeros_like(batch.lengths))[:, 0].astype(self._dtype)
        return self._output(self._activation(self._dense(first))).astype(mx.float32)


class TokenLogits:
    """The logit of one token after the text, or the difference of two; only their rows of the output layer are kept."""

    dimension = 1

    def __init__(self, rows: mx.array) -> None:
        """Take the rows (1 or 2, hidden size) of the output layer."""
        self._rows = rows

    def __call__(self, encoder: Encoder, batch: TokenBatch) -> mx.array:
        """Run the encoder on a batch, and return (batch, 1) float32."""
        last = encoder(batch, batch.lengths - 1)[:, 0].astype(mx.float32)
        logits = last @ self._rows.swapaxes(0, 1)
        return logits if logits.shape[1] == 1 else logits[:, :1] - logits[:, 1:]


def build_scoring_head(
    checkpoint: Checkpoint, hidden_size: int, weights: WeightReader, plan: ExecutionPlan
) -> Classifier | TokenLogits:
    """Build the head of a reranker, with arrays that are still lazy."""
    scoring, layers = checkpoint.scoring, checkpoint.architecture.classifier
    assert scoring is not None
    if scoring.tokens is None:
        assert layers is not None  # as the reader of the checkpoint saw
        return Classifier(layers, scoring.labels, hidden_size, weights, plan)
    rows = checkpoint.tensors[f"{scoring.token_layer}.weight"].shape[0]
    return TokenLogits(weights.chosen_rows(scoring.token_layer, rows, hidden_size, scoring.tokens))
