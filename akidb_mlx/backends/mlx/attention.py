"""Scaled dot-product attention (Vaswani et al. 2017), as MLX's fused kernel computes it and as its CPU backend should.

The fused kernel is right for a GPU. On MLX's CPU backend it takes the exponentials of its softmax one by one, which is
most of the time that a long text takes; there, the same is written out in operations that vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import negative_exp

Mask = mx.array | Literal["causal"] | None
# A way to compute it; see `fused_attention`.
Attention = Callable[[mx.array, mx.array, mx.array, float, Mask], mx.array]

# Fewest queries in a block: matrix products of less are slow, however many keys they see.
_LEAST_QUERIES = 64
# Added to a score that is masked; not -inf, so that a row which sees nothing stays a number.
_MASKED = -1e9


def fused_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """softmax(scale * queries keysᵀ) values, by MLX's own kernel.

    Args:
        queries: (batch, heads, length, size).
        keys: (batch, key heads, seen, size); each key head serves heads / key heads of the query heads.
        values: like `keys`.
        scale: factor of the scores.
        mask: True where a query (second to last axis) may see a key (last axis), or what `additive` makes of that;
            "causal", where the last query sees all keys and each one before it one less; or None for all.

    Returns:
        (batch, length, heads * size), what the heads found side by side.
    """
    mixed = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    return mixed.swapaxes(1, 2).flatten(2)


def vectorised_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """The same by matrix products and `negative_exp`; a mask must be additive.

    A query's scores are a column, because maxima and sums over columns vectorise. Its sum divides what it found, which
    is smaller than the column.
    """
    batch, heads, length, size = queries.shape
    key_heads, seen = keys.shape[1], keys.shape[2]
    group = heads // key_heads
    grouped = (queries * scale).reshape(batch, key_heads, group * length, size)
    scores = keys @ grouped.swapaxes(-1, -2)
    if mask is not None:
        added = (_causal(length, seen) if mask == "causal" else mask).swapaxes(-1, -2)[..., None, :]
        scores = (scores.reshape(batch, key_heads, seen, group, length) + added).reshape(scores.shape)
    weights = negative_exp(mx.max(scores, axis=-2, keepdims=True) - scores)
    mixed = (values.swapaxes(-1, -2) @ weights) / mx.sum(weights, axis=-2, keepdims=True)
    return mixed.reshape(batch, key_heads, size, group, length).transpose(0, 4, 1, 3, 2).flatten(2)


def in_blocks(attention: Attention, max_scores: int) -> Attention:
    """The same in blocks of queries, one after the other, so that no more than about `max_scores` are held at once."""

    def blocked(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
        batch, heads, length, _ = queries.shape
        seen = keys.shape[2]
        most = max(_LEAST_QUERIES, max_scores // (batch * heads * seen))
        if length <= most:
            return attention(queries, keys, values, scale, mask)
        block = -(-length // -(-length // most))  # of equal size
        keys, values = mx.contiguous(keys), mx.contiguous(values)  # once, and not in each block
        blocks: list[mx.array] = []
        for start in range(0, length, block):
            stop = min(start + block, length)
            # A causal block sees no key after its last query.
            last = stop + seen - length if mask == "causal" else seen
            part = mask[:, :, start:stop] if isinstance(mask, mx.array) and mask.shape[2] == length else mask
            asked = queries[:, :, start:stop]
            if blocks:
                (asked,) = mx.depends([asked], blocks[-1:])  # or MLX would take a step of each block in turn
            blocks.append(attention(asked, keys[:, :, :last], values[:, :, :last], scale, part))
        return mx.concatenate(blocks, axis=1)

    return blocked


def additive(visible: mx.array) -> mx.array:
    """What to add to the scores where a key may be seen (True) or not; `mx.where` would not vectorise either."""
    return (1 - visible.astype(mx.float32)) * _MASKED


def _causal(length: int, seen: int) -> mx.array:
    """The additive mask (length, seen) of "causal"."""
    ahead = mx.arange(seen, dtype=mx.float32) - mx.arange(seen - length, seen, dtype=mx.float32)[:, None]
    return mx.clip(ahead, 0, 1) * _MASKED
