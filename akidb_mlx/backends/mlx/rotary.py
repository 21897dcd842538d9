"""Rotary position embedding (Su et al. 2021), with the halves of a head rotated against each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx

# Rotates arrays (..., length, dimensions) by the positions of their tokens.
Rotation = Callable[[mx.array], mx.array]


def fused_rotation(length: int, dimensions: int, theta: float, offset: int = 0) -> Rotation:
    """Return the rotation that MLX's own kernel computes; see `tabulated_rotation` for the arguments."""
    del length  # the kernel takes it from the array
    return partial(mx.fast.rope, dims=dimensions, traditional=False, base=theta, scale=1.0, offset=offset)


def tabulated_rotation(length: int, dimensions: int, theta: float, offset: int = 0) -> Rotation:
    """Return a rotation whose sines and cosines are computed once, for all heads and layers that use it.

    MLX's kernel for the CPU would compute them anew for each.

    Args:
        length: number of positions.
        dimensions: size of a head.
        theta: base of the frequencies.
        offset: the first position.
    """
    half = dimensions // 2
    frequencies = 1.0 / mx.power(theta, mx.arange(half, dtype=mx.float32) / half)
    angles = mx.arange(offset, offset + length, dtype=mx.float32)[:, None] * frequencies
    cos, sin = mx.cos(angles), mx.sin(angles)

    def rotate(x: mx.array) -> mx.array:
        first, second = x[..., :half], x[..., half:]
        return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    return rotate
