"""Pooling: from one vector for each token to one vector for each text."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.checkpoint.architectures.architecture import PoolingMode


def pooled_positions(batch: TokenBatch, mode: PoolingMode) -> mx.array | None:
    """Return (batch,) int32, the position of the one token whose vector is the text's; None where all tokens count."""
    if mode == "cls":
        return mx.zeros_like(batch.lengths)
    if mode == "last":
        return batch.lengths - 1
    return None


def pool(hidden: mx.array, batch: TokenBatch, mode: PoolingMode) -> mx.array:
    """Pool in float32.

    Args:
        hidden: the token vectors, with padding on the right: (batch, 1, size) of the token at each text's
            `pooled_positions`, or (batch, length, size) where all tokens count.
        batch: the tokens that they belong to.
        mode: "mean" of the tokens that are not padding, "cls" for the first, "last" for the last of them.

    Returns:
        (batch, size) float32.
    """
    hidden = hidden.astype(mx.float32)
    if mode != "mean":
        return hidden[:, 0]
    if not batch.padded:
        return hidden.mean(axis=1)
    # A sum of chosen values, not a product with zeros: in half precision, vectors of padding could be NaN.
    summed = mx.where(batch.mask()[:, :, None], hidden, 0).sum(axis=1)
    return summed / batch.lengths[:, None]
