"""The masks of attention that sees both sides, in some layers only within a window."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.checkpoint.architectures.config import LayerType


def visible_keys(batch: TokenBatch, reach: int) -> dict[LayerType, mx.array | None]:
    """Return for each layer type an array that is True where a query sees a key; None where it sees all.

    Args:
        batch: the tokens.
        reach: a sliding layer sees the keys whose distance is less than this.
    """
    length = batch.ids.shape[1]
    full = batch.mask()[:, None, None, :] if batch.padded else None
    if length <= reach:
        return {"full_attention": full, "sliding_attention": full}
    positions = mx.arange(length)
    distance = mx.abs(positions[:, None] - positions)
    sliding = (distance < reach)[None, None]
    if full is not None:
        # Padding far from the text would see nothing, and its softmax would not be a number: let it see itself.
        sliding = (sliding & full) | (distance == 0)
    return {"full_attention": full, "sliding_attention": sliding}
