"""The packing of a matrix column by column, each column's error made up for by those after it (GPTQ).

Frantar et al. 2023: with H the second moment of a layer's inputs, the error of a column is spread over the columns that
are not packed yet so that the output changes the least, by the Cholesky factor of the inverse of H.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.quantization.packing import fit_grid, pack_codes

# Added to the diagonal of H, as a share of its mean: it can be inverted then, and a few thousand tokens do not decide
# more than they know.
_DAMPING = 0.1


def pack_compensated(
    weight: mx.array, packing: Quantization, dtype: mx.Dtype, moment: NDArray[np.float32]
) -> dict[str, mx.array]:
    """Return the arrays of a packed matrix, by the last part of their names.

    Args:
        weight: (rows, columns).
        packing: an affine one.
        dtype: the type of scales and biases.
        moment: (columns, columns), the sum of x xᵀ over the layer's inputs.
    """
    size, bits = packing.group_size, packing.bits
    columns = np.array(weight.astype(mx.float32)).T.copy()
    energies = np.diag(moment).astype(np.float32)
    energies = energies + max(float(energies.mean()), np.finfo(np.float32).tiny) * _DAMPING
    spread = _spread(moment, energies)
    codes = np.empty(columns.shape, np.uint8)
    scales, biases = [], []
    for first in range(0, len(columns), size):
        last = first + size
        part = mx.array(columns[first:last].T)[:, None, :]
        grid = fit_grid(part, bits, dtype, mx.array(energies[first:last])[None])
        scale, bias = (np.array(parameter[:, 0]) for parameter in (grid.scales, grid.biases))
        divisor = np.where(scale == 0, 1, scale)
        errors = np.empty((size, columns.shape[1]), np.float32)
        for place in range(first, last):
            column = columns[place]
            code = np.clip(np.rint((column - bias) / divisor), 0, 2**bits - 1)
            error = (column - (code * scale + bias)) / spread[place, place]
            columns[place + 1 : last] -= np.outer(spread[place, place + 1 : last], error)
            codes[place], errors[place - first] = code, error
        columns[last:] -= spread[first:last, last:].T @ errors
        scales.append(scale)
        biases.append(bias)
    return {
        "weight": pack_codes(mx.array(codes.T), bits),
        "scales": mx.array(np.stack(scales, axis=1)).astype(dtype),
        "biases": mx.array(np.stack(biases, axis=1)).astype(dtype),
    }


def _spread(moment: NDArray[np.float32], energies: NDArray[np.float32]) -> NDArray[Any]:
    """Return the upper Cholesky factor of the inverse of the damped moment.

    With the columns in reverse order, the moment is L Lᵀ; in their own order, L is upper triangular, and its inverse
    is the factor.
    """
    damped = moment.astype(np.float64)
    np.fill_diagonal(damped, energies)
    factor = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    return np.ascontiguousarray(np.linalg.inv(factor), np.float32)
