"""Decoders as encoders (Llama, Mistral, Qwen2, Qwen3, EuroBERT): the model without its output layer."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.attention import Mask
from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.plan import ExecutionPlan


def layer_mask(
    batch: TokenBatch, plan: ExecutionPlan, causal: bool, reach: int | None, token_positions: mx.array | None = None
) -> Mask:
    """Return the keys that a query sees.

    Args:
        batch: the tokens.
        plan: decides the form of the mask.
        causal: whether no token sees those after it.
        reach: the distance from which on a token is out of sight; None for none.
        token_positions: (batch,), for each text the position of the one query that is wanted; None for all.
    """
    offset = batch.prefix.length if batch.prefix else 0
    total = offset + batch.ids.shape[1]
    reach = total if reach is None else min(reach, total)
    if reach == total and not causal:
        return plan.mask(batch.mask()[:, None, None]) if batch.padded else None
    if reach == total and token_positions is None:
        return "causal"
    queries = mx.arange(offset, total) if token_positions is None else offset + token_positions[:, None]
    shape = (1, 1, -1, 1) if token_positions is None else (-1, 1, 1, 1)
    distance = queries.reshape(shape) - mx.arange(total)
    visible = (distance >= 0) & (distance < reach) if causal else mx.abs(distance) < reach
    if not causal and batch.padded:
        # Padding far from the text would see nothing, and its softmax would not be a number: let it see itself.
        visible = (visible & batch.mask()[:, None, None]) | (distance == 0)
    return plan.mask(visible)
