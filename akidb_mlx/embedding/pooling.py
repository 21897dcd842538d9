"""From one vector a token to one vector a text."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.embedding.architectures import PoolingMode
from akidb_mlx.embedding.encoders import TokenBatch


def pool(hidden: mx.array, batch: TokenBatch, mode: PoolingMode) -> mx.array:
    """Pool in float32.

    Args:
        hidden: (batch, length, size) token vectors, padding on the right.
        batch: the tokens they stand for.
        mode: "mean" of the real tokens, "cls" for the first, "last" for the last real one.

    Returns:
        (batch, size) float32.
    """
    if mode == "cls":
        return hidden[:, 0].astype(mx.float32)
    if mode == "last":
        last = (batch.lengths - 1)[:, None, None]
        return mx.take_along_axis(hidden, last, axis=1)[:, 0].astype(mx.float32)
    hidden = hidden.astype(mx.float32)
    if not batch.padded:
        return hidden.mean(axis=1)
    # A sum of chosen values, not a product with zeros: 0 times what a half precision made of padding could be NaN.
    summed = mx.where(batch.real()[:, :, None], hidden, 0).sum(axis=1)
    return summed / batch.lengths[:, None]
