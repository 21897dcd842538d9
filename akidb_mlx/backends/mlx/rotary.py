"""Rotary position embedding (Su et al. 2021), with the halves of a head rotated against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.architectures.rotary import RotaryPositions

# Rotates arrays (..., length, dimensions) by the positions of their tokens.
Rotation = Callable[[mx.array], mx.array]


def fused_rotation(length: int, positions: RotaryPositions, offset: int = 0) -> Rotation:
    """Return the rotation that MLX's own kernel computes; see `tabulated_rotation` for the arguments."""
    del length  # the kernel takes it from the array
    base: float | None = positions.theta
    wavelengths: mx.array | None = None
    if positions.frequencies is not None:
        base, wavelengths = None, 1 / mx.array(positions.frequencies)

    def rotate(x: mx.array) -> mx.array:
        if positions.amplitude != 1:
            x = x * positions.amplitude
        return mx.fast.rope(
            x, positions.dimensions, traditional=False, base=base, scale=1.0, offset=offset, freqs=wavelengths
        )

    return rotate


def tabulated_rotation(length: int, positions: RotaryPositions, offset: int = 0) -> Rotation:
    """Return a rotation whose sines and cosines are computed once, for all heads and layers that use it.

    MLX's kernel for the CPU would compute them anew for each.

    Args:
        length: number of positions.
        positions: their frequencies.
        offset: the first position.
    """
    half = positions.dimensions // 2
    cos, sin = rotation_table(length, positions, offset)

    def rotate(x: mx.array) -> mx.array:
        first, second = x[..., :half], x[..., half:]
        return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    return rotate


def rotation_table(length: int, positions: RotaryPositions, offset: int = 0) -> tuple[mx.array, mx.array]:
    """Return the cosines and the sines (length, dimensions / 2) of a rotation; see `tabulated_rotation`."""
    half = positions.dimensions // 2
    if positions.frequencies is None:
        frequencies = 1.0 / mx.power(positions.theta, mx.arange(half, dtype=mx.float32) / half)
    else:
        frequencies = mx.array(positions.frequencies)
    angles = mx.arange(offset, offset + length, dtype=mx.float32)[:, None] * frequencies
    cos, sin = mx.cos(angles), mx.sin(angles)
    if positions.amplitude != 1:
        cos, sin = cos * positions.amplitude, sin * positions.amplitude
    return cos, sin
