"""From one vector a token to one vector a text."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.checkpoint.architectures import PoolingMode


def pooled_token(batch: TokenBatch, mode: PoolingMode) -> mx.array | None:
    """(batch,) int32, the position of the one token whose vector is a text's; None where all of them count."""
    if mode == "cls":
        return mx.zeros_like(batch.lengths)
    if mode == "last":
        return batch.lengths - 1
    return None


def pool(hidden: mx.array, batch: TokenBatch, mode: PoolingMode) -> mx.array:
    """Pool in float32.

    Args:
        hidden: the token vectors, padding on the right: (batch, 1, size) of each text's `pooled_token`, and (batch,
            length, size) where all count.
        batch: the tokens they stand for.
        mode: "mean" of the real tokens, "cls" for the first, "last" for the last real one.

    Returns:
        (batch, size) float32.
    """
    hidden = hidden.astype(mx.float32)
    if mode != "mean":
        return hidden[:, 0]
    if not batch.padded:
        return hidden.mean(axis=1)
    # A sum of chosen values, not a product with zeros: 0 times what a half precision made of padding could be NaN.
    summed = mx.where(batch.real()[:, :, None], hidden, 0).sum(axis=1)
    return summed / batch.lengths[:, None]
