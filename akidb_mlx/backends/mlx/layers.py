"""The layers that all encoders are made of: linear, table, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.checkpoint.quantization import Quantization


@dataclass(frozen=True)
class Packing:
    """A weight matrix (rows, columns) as MLX packs it; `dtype` is what it unpacks to."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    quantization: Quantization
    dtype: mx.Dtype

    @classmethod
    def concatenate(cls, packings: Sequence[Packing]) -> Packing:
        """One matrix of the rows of several, all packed alike."""
        first = packings[0]
        biases = [packing.biases for packing in packings if packing.biases is not None]
        return cls(
            weight=mx.concatenate([packing.weight for packing in packings]),
            scales=mx.concatenate([packing.scales for packing in packings]),
            biases=mx.concatenate(biases) if biases else None,
            quantization=first.quantization,
            dtype=first.dtype,
        )

    def rows(self, indices: mx.array) -> Packing:
        """The matrix of the rows that `indices` name, of any shape."""
        biases = None if self.biases is None else self.biases[indices]
        return Packing(self.weight[indices], self.scales[indices], biases, self.quantization, self.dtype)

    def unpack(self) -> mx.array:
        """The matrix as numbers."""
        q = self.quantization
        return mx.dequantize(
            self.weight, self.scales, self.biases, group_size=q.group_size, bits=q.bits, mode=q.mode, dtype=self.dtype
        )


class Linear:
    """x Wᵀ + b on the last axis."""

    def __init__(self, weight: Packing | mx.array, bias: mx.array | None, exact: bool) -> None:
        self._weight = weight if isinstance(weight, Packing) else weight.swapaxes(0, 1)
        self._bias = bias
        self._exact = exact

    def __call__(self, x: mx.array) -> mx.array:
        """(..., inputs) → (..., outputs)."""
        weight = self._weight
        if isinstance(weight, mx.array):
            if self._bias is None:
                return x @ weight
            # MLX's CPU backend would first copy the bias to every row.
            return x @ weight + self._bias if self._exact else mx.addmm(self._bias, x, weight)
        q = weight.quantization
        product = mx.quantized_matmul(
            x, weight.weight, weight.scales, weight.biases, True, q.group_size, q.bits, mode=q.mode
        )
        product = product.astype(x.dtype)  # wider where the scales are
        return product if self._bias is None else product + self._bias


class Embedding:
    """A table of vectors, looked up by row."""

    def __init__(self, table: Packing | mx.array) -> None:
        self._table = table

    def __call__(self, indices: mx.array) -> mx.array:
        """(...) integers → (..., size)."""
        if isinstance(self._table, Packing):
            return self._table.rows(indices).unpack()
        return self._table[indices]


class RMSNorm:
    """x / √(mean(x²) + eps) * weight (Zhang and Sennrich 2019)."""

    def __init__(self, weight: mx.array, eps: float, exact: bool) -> None:
        self._weight, self._eps = weight, eps
        self._average = _average(weight.size) if exact else None

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape, normalised over the last axis."""
        if self._average is None:
            return mx.fast.rms_norm(x, self._weight, self._eps)
        return x * mx.rsqrt(mx.square(x) @ self._average + self._eps) * self._weight


class LayerNorm:
    """(x - mean(x)) / √(var(x) + eps) * weight + bias (Ba et al. 2016)."""

    def __init__(self, weight: mx.array, bias: mx.array, eps: float, exact: bool) -> None:
        self._weight, self._bias, self._eps = weight, bias, eps
        self._average = _average(weight.size) if exact else None

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape, normalised over the last axis."""
        if self._average is None:
            return mx.fast.layer_norm(x, self._weight, self._bias, self._eps)
        centred = x - x @ self._average
        return centred * mx.rsqrt(mx.square(centred) @ self._average + self._eps) * self._weight + self._bias


def _average(size: int) -> mx.array:
    """(size, 1); the product with it is the mean, which on MLX's CPU backend is faster than its reductions."""
    return mx.full((size, 1), 1 / size)


def at_positions(x: mx.array, positions: mx.array) -> mx.array:
    """(batch, …, length, size) → (batch, …, 1, size): of each text the vector at its position (batch,)."""
    index = positions.reshape(-1, *[1] * (x.ndim - 1))
    return mx.take_along_axis(x, index, axis=-2)
