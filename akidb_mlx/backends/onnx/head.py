"""Pooling and the modules after it, with NumPy, for a file whose outputs are the vectors of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from akidb_mlx.checkpoint import head as described
from akidb_mlx.checkpoint.head import PoolingMode
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.engine.backend import TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.vectors import Vectors

# The constant of torch.nn.functional.normalize, which sentence-transformers leaves as it is.
_SMALLEST_LENGTH = 1e-12

Step = Callable[[Vectors], Any]
_erf = np.vectorize(math.erf, otypes=[np.float32])


def _softplus(x: Vectors) -> Vectors:
    result: Vectors = np.logaddexp(x, np.float32(0))
    return result


def _sigmoid(x: Vectors) -> Vectors:
    return np.exp(-_softplus(-x)).astype(np.float32)


def _elu(x: Vectors) -> Any:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


# The classes of torch.nn that a Dense module may name, by the functions that they compute with their own defaults.
DENSE: dict[str, Step] = {
    "CELU": _elu,
    "ELU": _elu,
    "GELU": lambda x: (0.5 * x) * (1 + _erf(x * math.sqrt(0.5))),
    "Hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "Hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Hardtanh": lambda x: np.clip(x, -1, 1),
    "Identity": lambda x: x,
    "LeakyReLU": lambda x: np.where(x > 0, x, np.float32(0.01) * x),
    "LogSigmoid": lambda x: -_softplus(-x),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "SELU": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "SiLU": lambda x: x * _sigmoid(x),
    "Sigmoid": _sigmoid,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tanh": np.tanh,
}


class TokenHead:
    """Pooling, and the modules after it.

    Attributes:
        dimension: size of a row of its output.
    """

    def __init__(self, head: described.Head, tensors: Mapping[str, StoredTensor], hidden_size: int) -> None:
        """Load the weights of the modules.

        Raises:
            ModelLoadError: a file cannot be read, or a weight does not fit.
        """
        self._modes = head.pooling.modes
        self._tensors = tensors
        self.dimension = hidden_size * len(self._modes)
        self._steps = [self._step(module) for module in head.modules]

    def __call__(self, hidden: Vectors, rows: TokenRows) -> Vectors:
        """Map token vectors (batch, length, hidden size), with padding on the right, to (batch, dimension)."""
        vectors = np.concatenate([_pool(hidden, rows, mode) for mode in self._modes], axis=-1)
        for step in self._steps:
            vectors = step(vectors)
        return vectors.astype(np.float32, copy=False)

    def _step(self, module: described.HeadModule) -> Step:
        if isinstance(module, described.Dense):
            return self._dense(module)
        if isinstance(module, described.LayerNorm):
            return self._layer_norm(module)
        return _normalize

    def _dense(self, module: described.Dense) -> Step:
        inputs, self.dimension = self.dimension, module.outputs
        weight = self._load(f"{module.name}.weight", (module.outputs, inputs)).T
        bias = self._load(f"{module.name}.bias", (module.outputs,)) if module.bias else np.float32(0)
        activation = DENSE[module.activation]
        through = None
        if module.residual and module.outputs != inputs:
            through = self._load(f"{module.name}.residual.weight", (module.outputs, inputs)).T

        def dense(vectors: Vectors) -> Vectors:
            output: Vectors = activation(vectors @ weight + bias)
            if module.residual:
                output += vectors if through is None else vectors @ through
            return output

        return dense

    def _layer_norm(self, module: described.LayerNorm) -> Step:
        weight = self._load(f"{module.name}.weight", (self.dimension,))
        bias = self._load(f"{module.name}.bias", (self.dimension,)) if module.bias else np.float32(0)

        def norm(vectors: Vectors) -> Vectors:
            centred = vectors - vectors.mean(axis=-1, keepdims=True)
            variance = np.square(centred).mean(axis=-1, keepdims=True)
            result: Vectors = centred / np.sqrt(variance + np.float32(module.eps)) * weight + bias
            return result

        return norm

    def _load(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        stored = self._tensors.get(name)
        if stored is None or stored.shape != shape or stored.dtype not in ("F32", "F16"):
            found = "missing" if stored is None else f"{stored.dtype} of shape {stored.shape}"
            raise ModelLoadError(f"{name} is {found}, expected F32 or F16 of shape {shape}")
        try:
            with safe_open(stored.file, framework="numpy") as content:
                array: NDArray[Any] = content.get_tensor(stored.key)
        except (OSError, SafetensorError) as error:
            raise ModelLoadError(f"{stored.file} cannot be loaded: {error}") from error
        return array.astype(np.float32)


def _normalize(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(_SMALLEST_LENGTH))
    return vectors / lengths


def _pool(hidden: Vectors, rows: TokenRows, mode: PoolingMode) -> Vectors:
    """Return (batch, hidden size) of the tokens that are neither padding nor left out."""
    lengths, first = rows.lengths, rows.unpooled
    if mode in ("cls", "last"):
        return hidden[np.arange(len(hidden)), np.full_like(lengths, first) if mode == "cls" else lengths - 1]
    places = np.arange(hidden.shape[1])
    counts = (places < lengths[:, None]) & (places >= first)
    if mode == "max":
        largest: Vectors = np.where(counts[:, :, None], hidden, np.float32(-np.inf)).max(axis=1)
        return largest
    # Vectors of padding are not multiplied by zero: in half precision, they could be NaN.
    kept = hidden if counts.all() else np.where(counts[:, :, None], hidden, np.float32(0))
    weights = counts.astype(np.float32)
    if mode == "weightedmean":
        weights *= places + np.float32(1)
    summed: Vectors = np.einsum("bl,blh->bh", weights, kept)
    total: Vectors = weights.sum(axis=1, keepdims=True)
    divisor: Vectors = np.sqrt(total, dtype=np.float32) if mode == "mean_sqrt_len_tokens" else total
    return summed / divisor
