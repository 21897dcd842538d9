"""The packing of one matrix: codes of a few bits, and for each group of columns what turns them into numbers again."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.checkpoint.quantization import Quantization

# Shares of a group's range that the codes may span: a narrower grid is finer, at the price of the outermost values.
_SHARES = (1.0, 0.9, 0.8)
# From so many bits on, the outermost values cost more than a finer grid gains.
_FINE_BITS = 6
# Numbers that are packed at a time.
_CHUNK = 1 << 18
# Least-squares fits of scale and bias to the codes that they lead to.
_FITS = 2


@dataclass(frozen=True)
class Grid:
    """The values that the codes of each group stand for: code * scale + bias, both (rows, groups) float32."""

    scales: mx.array
    biases: mx.array

    def codes(self, values: mx.array, bits: int) -> mx.array:
        """Return the nearest codes, as float32, of values (rows, groups, group size)."""
        scales = self.scales[..., None]
        steps = (values - self.biases[..., None]) / mx.where(scales == 0, 1, scales)
        return mx.clip(mx.round(steps), 0, 2**bits - 1)

    def values(self, codes: mx.array) -> mx.array:
        """Return the numbers that codes (rows, groups, group size) stand for."""
        return codes * self.scales[..., None] + self.biases[..., None]

    def rounded(self, dtype: mx.Dtype) -> Grid:
        """Return the grid as its parameters are stored, so that the codes make up for the rounding."""
        return Grid(self.scales.astype(dtype).astype(mx.float32), self.biases.astype(dtype).astype(mx.float32))


def fit_grid(values: mx.array, bits: int, dtype: mx.Dtype, energies: mx.array | None = None) -> Grid:
    """Return the grid of each group, among a few, whose codes have the smallest squared error.

    Args:
        values: (rows, groups, group size) float32.
        bits: of a code.
        dtype: the type that scales and biases are stored in.
        energies: (groups, group size), the weight of a column's errors; None where all count alike.
    """
    lowest, highest = values.min(axis=-1), values.max(axis=-1)
    best = _spanning(lowest, highest, bits).rounded(dtype)
    smallest = _error(values, best, bits, energies)
    for share in _SHARES if bits < _FINE_BITS else _SHARES[:1]:
        grid = _spanning(lowest * share, highest * share, bits)
        for _ in range(_FITS):
            grid = _refit(values, grid, bits, energies)
        grid = grid.rounded(dtype)
        error = _error(values, grid, bits, energies)
        better = error < smallest
        best = Grid(mx.where(better, grid.scales, best.scales), mx.where(better, grid.biases, best.biases))
        smallest = mx.minimum(error, smallest)
    return best


def pack_rows(weight: mx.array, packing: Quantization, dtype: mx.Dtype) -> dict[str, mx.array]:
    """Return the arrays of a packed matrix (rows, columns), by the last part of their names; they are still lazy."""
    weight = weight.astype(mx.float32)
    if packing.mode != "affine":
        packed, scales, *_ = mx.quantize(weight, packing.group_size, packing.bits, mode=packing.mode)
        return {"weight": packed, "scales": scales}
    groups = weight.reshape(len(weight), -1, packing.group_size)
    grid = fit_grid(groups, packing.bits, dtype)
    return pack_grid(grid.codes(groups, packing.bits).flatten(1), grid, packing.bits, dtype)


def unpacked_rows(weight: mx.array, packing: Quantization, dtype: mx.Dtype) -> mx.array:
    """Return a matrix (rows, columns) as it is once packed, in float32."""
    parts = [
        weight[first : first + step] for step in [chunk_rows(weight.shape[1])] for first in range(0, len(weight), step)
    ]
    return mx.concatenate([_unpacked(part, packing, dtype) for part in parts])


def chunk_rows(columns: int) -> int:
    """Return how many rows of a matrix are best packed at a time, so that a core finds them in its cache."""
    return max(1, _CHUNK // columns)


def _unpacked(weight: mx.array, packing: Quantization, dtype: mx.Dtype) -> mx.array:
    if packing.mode != "affine":
        packed, scales, *_ = mx.quantize(weight, packing.group_size, packing.bits, mode=packing.mode)
        return mx.dequantize(
            packed, scales, None, packing.group_size, packing.bits, mode=packing.mode, dtype=mx.float32
        )
    groups = weight.reshape(len(weight), -1, packing.group_size)
    grid = fit_grid(groups, packing.bits, dtype)
    values = grid.values(grid.codes(groups, packing.bits)).reshape(weight.shape)
    mx.eval(values)
    return values


def pack_grid(codes: mx.array, grid: Grid, bits: int, dtype: mx.Dtype) -> dict[str, mx.array]:
    """Return the arrays of a matrix of codes (rows, columns) on a grid."""
    return {
        "weight": pack_codes(codes, bits),
        "scales": grid.scales.astype(dtype),
        "biases": grid.biases.astype(dtype),
    }


def pack_codes(codes: mx.array, bits: int) -> mx.array:
    """Return codes (rows, columns) as MLX stores them: a stream of bits, from the lowest on, in words of 32."""
    blocks = codes.astype(mx.uint32).reshape(len(codes), -1, 32)
    words: list[mx.array] = []
    carried: mx.array | None = None
    for word in range(bits):
        # The codes that begin in this word; the last of them may end in the next.
        first, last = -(-32 * word // bits), -(-32 * (word + 1) // bits)
        starts = mx.arange(first, last, dtype=mx.uint32) * bits - 32 * word
        part = mx.left_shift(blocks[..., first:last], starts).sum(axis=-1)
        words.append(part if carried is None else part + carried)
        over = last * bits - 32 * (word + 1)
        carried = mx.right_shift(blocks[..., last - 1], bits - over) if over else None
    return mx.stack(words, axis=-1).reshape(len(codes), -1).astype(mx.uint32)


def _spanning(lowest: mx.array, highest: mx.array, bits: int) -> Grid:
    return Grid((highest - lowest) / (2**bits - 1), lowest)


def _refit(values: mx.array, grid: Grid, bits: int, energies: mx.array | None) -> Grid:
    """Return the grid of least squared error for the codes that a grid leads to."""
    codes = grid.codes(values, bits)
    total = values.shape[-1] if energies is None else energies.sum(axis=-1)
    mean_code, mean_value = _weighted(codes, energies) / total, _weighted(values, energies) / total
    centred = codes - mean_code[..., None]
    spread = _weighted(mx.square(centred), energies)
    flat = spread <= 0
    scales = _weighted(centred * values, energies) / mx.where(flat, 1, spread)
    scales = mx.where(flat, grid.scales, scales)
    return Grid(scales, mx.where(flat, grid.biases, mean_value - scales * mean_code))


def _error(values: mx.array, grid: Grid, bits: int, energies: mx.array | None) -> mx.array:
    return _weighted(mx.square(values - grid.values(grid.codes(values, bits))), energies)


def _weighted(values: mx.array, energies: mx.array | None) -> mx.array:
    """Return (rows, groups), the weighted sums over each group."""
    weighted = values if energies is None else values * energies
    return (weighted @ mx.ones((values.shape[-1], 1)))[..., 0]  # faster than a sum on MLX's CPU backend
