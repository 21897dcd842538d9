"""Pooling: from one vector for each token to one vector for each text."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.layers import at_positions
from akidb_mlx.checkpoint.head import Pooling, PoolingMode


def pooled_positions(batch: TokenBatch, pooling: Pooling) -> mx.array | None:
    """Return (batch,) int32, the position of the one token whose vector is the text's; None where several count."""
    return _position(batch, pooling.modes[0]) if len(pooling.modes) == 1 else None


def pool(hidden: mx.array, batch: TokenBatch, pooling: Pooling) -> mx.array:
    """Pool in float32.

    Args:
        hidden: the token vectors, with padding on the right: (batch, 1, size) of the token at each text's
            `pooled_positions`, or (batch, length, size) where there is none.
        batch: the tokens that they belong to; its first `unpooled` ones are left out.
        pooling: the modes, whose vectors stand side by side in their order.

    Returns:
        (batch, modes * size) float32.
    """
    hidden = hidden.astype(mx.float32)
    if pooled_positions(batch, pooling) is not None:
        return hidden[:, 0]
    return mx.concatenate([_pool(hidden, batch, mode) for mode in pooling.modes], axis=-1)


def _position(batch: TokenBatch, mode: PoolingMode) -> mx.array | None:
    if mode == "cls":
        return mx.full(batch.lengths.shape, batch.unpooled, mx.int32)
    return batch.lengths - 1 if mode == "last" else None


def _pool(hidden: mx.array, batch: TokenBatch, mode: PoolingMode) -> mx.array:
    position = _position(batch, mode)
    if position is not None:
        return at_positions(hidden, position)[:, 0]
    if mode == "max":
        return _pooled(hidden, batch, -mx.inf).max(axis=1)
    if mode == "weightedmean":
        positions = mx.arange(1, hidden.shape[1] + 1, dtype=mx.float32)[None, :, None]
        return _pooled(hidden * positions, batch, 0).sum(axis=1) / _pooled(positions, batch, 0).sum(axis=1)
    count = (batch.lengths - batch.unpooled)[:, None]
    summed = _pooled(hidden, batch, 0).sum(axis=1)
    return summed / (mx.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def _pooled(values: mx.array, batch: TokenBatch, otherwise: float) -> mx.array:
    """Return (batch, length, size) with another value for the tokens that do not count.

    Values are chosen, not multiplied by zero: in half precision, vectors of padding could be NaN.
    """
    if not batch.padded and not batch.unpooled:
        return values
    counts = batch.mask() & (mx.arange(batch.ids.shape[1]) >= batch.unpooled)
    return mx.where(counts[:, :, None], values, otherwise)
