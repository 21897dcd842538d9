"""Scaled dot-product attention (Vaswani et al. 2017): by MLX's own function, and in operations that vectorise.

MLX's own function is right for a GPU, where it is one fused kernel for some head sizes. On MLX's CPU backend it
computes the exponentials of its softmax one by one, which takes most of the time of a long text; there,
`vectorised_attention` replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import mlx.core as mx

from akidb_mlx.backends.mlx.activations import negative_exp

Mask = mx.array | Literal["causal"] | None
# Computes attention of queries, keys, values, scale and mask; see `fused_attention`.
Attention = Callable[[mx.array, mx.array, mx.array, float, Mask], mx.array]

# Fewest queries in a block: smaller matrix products are slow, however many keys there are.
_MIN_QUERIES = 64
# The head sizes for which MLX's kernel for Metal takes keys block by block, so that it holds no scores, also with more
# than 8 queries (`ScaledDotProductAttention::use_fallback` in MLX 0.32.1; later ones have a few more). With the others,
# such as MiniLM's 32 and Gemma's 256, MLX computes all scores at once.
METAL_HEAD_SIZES = frozenset({64, 80, 128})
# Added to a score that is masked; not -inf, so that a row which sees nothing stays a number.
_MASKED = -1e9


def fused_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """Compute softmax(scale * queries keysᵀ) values by MLX's own function.

    Args:
        queries: (batch, heads, length, head size).
        keys: (batch, key heads, key length, head size); each key head serves heads / key heads of the query heads.
        values: the same shape as `keys`.
        scale: factor of the scores.
        mask: an array that is True where a query (second to last axis) may see a key (last axis), or its
            `additive_mask`; "causal", where the last query sees all keys and each one before it one less; or None where
            every query sees all keys.

    Returns:
        (batch, length, heads * head size), the results of the heads side by side.
    """
    attended = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    return attended.swapaxes(1, 2).flatten(2)


def vectorised_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """Compute the same as `fused_attention` by matrix products and `negative_exp`; a mask must be additive.

    The scores of a query are a column, because maxima and sums over columns vectorise. The sum of the weights divides
    the result, which is smaller than the column.
    """
    batch, heads, length, head_size = queries.shape
    key_heads, key_length = keys.shape[1], keys.shape[2]
    group = heads // key_heads
    grouped = (queries * scale).reshape(batch, key_heads, group * length, head_size)
    scores = keys @ grouped.swapaxes(-1, -2)
    if mask is not None:
        added = (_causal_mask(length, key_length) if mask == "causal" else mask).swapaxes(-1, -2)[..., None, :]
        scores = (scores.reshape(batch, key_heads, key_length, group, length) + added).reshape(scores.shape)
    weights = negative_exp(mx.max(scores, axis=-2, keepdims=True) - scores)
    attended = (values.swapaxes(-1, -2) @ weights) / mx.sum(weights, axis=-2, keepdims=True)
    return attended.reshape(batch, key_heads, head_size, group, length).transpose(0, 4, 1, 3, 2).flatten(2)


def in_blocks(attention: Attention, max_scores: int, without_scores: Collection[int] = ()) -> Attention:
    """Return `attention` computed in blocks of queries, one after the other, with about `max_scores` held at once.

    Args:
        attention: the function.
        max_scores: the bound, for all heads and texts of a batch together.
        without_scores: head sizes for which `attention` holds no scores, so that it is left whole.
    """

    def blocked(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
        batch, heads, length, head_size = queries.shape
        key_length = keys.shape[2]
        max_queries = max(_MIN_QUERIES, max_scores // (batch * heads * key_length))
        if head_size in without_scores or length <= max_queries:
            return attention(queries, keys, values, scale, mask)
        block = -(-length // -(-length // max_queries))  # of equal size
        keys, values = mx.contiguous(keys), mx.contiguous(values)  # once, and not in each block
        blocks: list[mx.array] = []
        for start in range(0, length, block):
            stop = min(start + block, length)
            # A causal block sees no key after its last query.
            last = stop + key_length - length if mask == "causal" else key_length
            block_mask = mask[:, :, start:stop] if isinstance(mask, mx.array) and mask.shape[2] == length else mask
            block_queries = queries[:, :, start:stop]
            if blocks:
                # Without the dependency, MLX would run a step of each block in turn.
                (block_queries,) = mx.depends([block_queries], blocks[-1:])
            blocks.append(attention(block_queries, keys[:, :, :last], values[:, :, :last], scale, block_mask))
        return mx.concatenate(blocks, axis=1)

    return blocked


def additive_mask(visible: mx.array | None, bias: mx.array | None = None) -> mx.array:
    """Return the summand of the scores for an array that is True where a key may be seen, and a bias of the scores.

    It is made by a product, because `mx.where` would not vectorise, and laid out key by key, as `vectorised_attention`
    reads it. At least one of the two must be given; both are (batch or 1, heads or 1, length or 1, key length).
    """
    parts = [] if bias is None else [bias.astype(mx.float32).swapaxes(-1, -2)]
    if visible is not None:
        parts.append((1 - visible.swapaxes(-1, -2).astype(mx.float32)) * _MASKED)
    return mx.contiguous(sum(parts[1:], parts[0])).swapaxes(-1, -2)


def biased_mask(visible: mx.array | None, bias: mx.array) -> mx.array:
    """Return a bias as the mask of `fused_attention`, in the type of its queries; see `additive_mask`."""
    # A finite number, which stays finite when a score is added to it.
    return bias if visible is None else mx.where(visible, bias, mx.array(mx.finfo(bias.dtype).min / 2, bias.dtype))


def _causal_mask(length: int, key_length: int) -> mx.array:
    """Return the additive mask (length, key length) of "causal"."""
    positions = mx.arange(key_length - length, key_length, dtype=mx.float32)
    ahead = mx.arange(key_length, dtype=mx.float32) - positions[:, None]
    return mx.clip(ahead, 0, 1) * _MASKED
