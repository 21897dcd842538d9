"""The head of a reranker that compares the logits of tokens; that of a classifier is an `EmbeddingHead`."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import Encoder, TokenBatch
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint


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


def build_token_logits(checkpoint: Checkpoint, weights: WeightReader, hidden_size: int) -> TokenLogits | None:
    """Build the head with rows that are still lazy; None for a model that compares no tokens."""
    scoring = checkpoint.scoring
    if scoring is None or scoring.tokens is None:
        return None
    rows = checkpoint.tensors[f"{scoring.token_layer}.weight"].shape[0]
    return TokenLogits(weights.chosen_rows(scoring.token_layer, rows, hidden_size, scoring.tokens))
