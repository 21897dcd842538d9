"""The layers that all encoders are made of: linear, embedding, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.backends.mlx.operators import named
from akidb_mlx.checkpoint.quantization import Quantization


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight matrix (rows, columns) as MLX packs it; `dtype` is the type of its values once dequantised."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    quantization: Quantization
    dtype: mx.Dtype

    @property
    def arrays(self) -> list[mx.array]:
        """Return the arrays that it consists of."""
        return [self.weight, self.scales] + ([] if self.biases is None else [self.biases])

    @classmethod
    def concatenate(cls, matrices: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
        """Return one matrix of the rows of several, all quantised alike."""
        first = matrices[0]
        biases = [matrix.biases for matrix in matrices if matrix.biases is not None]
        return cls(
            weight=mx.concatenate([matrix.weight for matrix in matrices]),
            scales=mx.concatenate([matrix.scales for matrix in matrices]),
            biases=mx.concatenate(biases) if biases else None,
            quantization=first.quantization,
            dtype=first.dtype,
        )

    def rows(self, indices: mx.array) -> QuantizedMatrix:
        """Return the matrix of the rows that `indices`, of any shape, name."""
        biases = None if self.biases is None else self.biases[indices]
        return QuantizedMatrix(self.weight[indices], self.scales[indices], biases, self.quantization, self.dtype)

    def dequantize(self) -> mx.array:
        """Return the matrix as plain numbers."""
        q = self.quantization
        return mx.dequantize(
            self.weight, self.scales, self.biases, group_size=q.group_size, bits=q.bits, mode=q.mode, dtype=self.dtype
        )


class Linear:
    """x Wᵀ + b on the last axis."""

    def __init__(self, weight: QuantizedMatrix | mx.array, bias: mx.array | None, exact: bool) -> None:
        self._weight = weight if isinstance(weight, QuantizedMatrix) else weight.swapaxes(0, 1)
        self._bias = bias
        self._exact = exact

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., inputs) to (..., outputs)."""
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
        product = product.astype(x.dtype)  # the product is wider where the scales are
        return product if self._bias is None else product + self._bias


class Embedding:
    """A table of vectors, looked up by row."""

    def __init__(self, table: QuantizedMatrix | mx.array) -> None:
        self._table = table

    def __call__(self, indices: mx.array) -> mx.array:
        """Map (...) integers to (..., size)."""
        if isinstance(self._table, QuantizedMatrix):
            return self._table.rows(indices).dequantize()
        return self._table[indices]


class RMSNorm:
    """x / √(mean(x²) + eps) * weight (Zhang and Sennrich 2019)."""

    def __init__(self, weight: mx.array, eps: float, exact: bool) -> None:
        self._weight, self._eps = weight, eps
        self._average = _average(weight.size) if exact else None

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise an array of any shape over its last axis."""
        return named("RMSNormalization", self._normalize(x), [x, self._weight], epsilon=self._eps)

    def _normalize(self, x: mx.array) -> mx.array:
        if self._average is None:
            return mx.fast.rms_norm(x, self._weight, self._eps)
        return x * mx.rsqrt(mx.square(x) @ self._average + self._eps) * self._weight


class LayerNorm:
    """(x - mean(x)) / √(var(x) + eps) * weight + bias (Ba et al. 2016); a bias of None is not added."""

    def __init__(self, weight: mx.array, bias: mx.array | None, eps: float, exact: bool) -> None:
        self._weight, self._bias, self._eps = weight, bias, eps
        self._average = _average(weight.size) if exact else None

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise an array of any shape over its last axis."""
        parameters = [self._weight] if self._bias is None else [self._weight, self._bias]
        return named("LayerNormalization", self._normalize(x), [x, *parameters], epsilon=self._eps)

    def _normalize(self, x: mx.array) -> mx.array:
        if self._average is None:
            return mx.fast.layer_norm(x, self._weight, self._bias, self._eps)
        centred = x - x @ self._average
        scaled = centred * mx.rsqrt(mx.square(centred) @ self._average + self._eps) * self._weight
        return scaled if self._bias is None else scaled + self._bias


def at_positions(x: mx.array, positions: mx.array) -> mx.array:
    """Return (batch, …, 1, size) of (batch, …, length, size): for each text the vector at its position (batch,)."""
    index = positions.reshape(-1, *[1] * (x.ndim - 1))
    return mx.take_along_axis(x, index, axis=-2)


def _average(size: int) -> mx.array:
    """Return (size, 1), the product with which is the mean: faster than the reductions of MLX's CPU backend."""
    return mx.full((size, 1), 1 / size)
