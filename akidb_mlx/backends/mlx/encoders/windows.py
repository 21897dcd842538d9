"""The masks of attention that sees one side or both, in some layers only within a window."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.blocks import mask_at
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.checkpoint.architectures.config import LayerType


def layer_masks(batch: TokenBatch, plan: ExecutionPlan, reach: int | None, causal: bool) -> dict[LayerType, Mask]:
    """Return for each layer type the mask of its attention.

    Args:
        batch: the tokens.
        plan: decides the form of a mask.
        reach: a sliding layer sees the keys whose distance is less than this; None where no layer is one.
        causal: whether no token sees those after it; the padding, which is on the right, is then never seen.
    """
    offset, length = batch.prefix.length if batch.prefix else 0, batch.ids.shape[1]
    total = offset + length
    if not causal:
        return {kind: plan.mask(visible) for kind, visible in visible_keys(batch, reach or total).items()}
    if reach is None or total <= reach:
        return {"full_attention": "causal", "sliding_attention": "causal"}
    distance = mx.arange(offset, total)[:, None] - mx.arange(total)
    sliding = plan.mask(((distance >= 0) & (distance < reach))[None, None])
    return {"full_attention": "causal", "sliding_attention": sliding}


def mask_of_one(mask: Mask, positions: mx.array, offset: int, length: int, plan: ExecutionPlan) -> mx.array | None:
    """Return the part of a layer's mask that is for the one query of each text at its position (batch,).

    Args:
        mask: as `layer_masks` gives it.
        positions: of the queries, behind the prefix.
        offset: tokens of the prefix.
        length: tokens behind it.
        plan: decides the form of a mask.
    """
    if not isinstance(mask, str):
        return mask_at(mask, positions)
    return plan.mask((mx.arange(offset + length) <= offset + positions[:, None])[:, None, None])


def visible_keys(batch: TokenBatch, reach: int) -> dict[LayerType, mx.array | None]:
    """Return for each layer type an array that is True where a query sees a key on either side; None where it sees all.

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
