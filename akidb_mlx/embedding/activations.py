"""Activation functions, as MLX computes them and as its CPU backend should.

MLX's own `erf`, `tanh` and `sigmoid` are right for a GPU. On its CPU backend they are scalar library calls, 5 to 10
times slower than the matrix products around them; there, approximations stand in for them, made of multiplications and
additions, which vectorise. Largest error of each activation, either way: 1e-6 of max(1, |x|).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import mlx.core as mx

Activation = Callable[[mx.array], mx.array]


def gelu(x: mx.array) -> mx.array:
    """Gaussian error linear unit: x Φ(x), Φ being the normal distribution function (Hendrycks and Gimpel 2016)."""
    return (0.5 * x) * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """The tanh approximation of `gelu` from the same paper; "gelu_new" and "gelu_pytorch_tanh" in configurations."""
    return (0.5 * x) * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def silu(x: mx.array) -> mx.array:
    """Sigmoid linear unit: x sigmoid(x)."""
    return x * mx.sigmoid(x)


def relu(x: mx.array) -> mx.array:
    """Rectified linear unit: max(x, 0)."""
    return mx.maximum(x, 0)


# For `folded`, highest power first, fitted by benchmarks/fit_activations.py.
_GELU = (6.24130909e-06, 4.58615553e-05, 5.59832024e-05, 0.0033987413, 0.0220939384, 0.0520700022, 1.04427427)
_GELU_TANH = (2.43848954e-05, 8.01262474e-05, -0.000117389443, 0.00352760546, 0.0219967142, 0.0520938252, 1.04427241)


def folded(x: mx.array, coefficients: tuple[float, ...]) -> mx.array:
    """max(x, 0) - |x| / p(|x|)^16.

    An activation x F(x) with F(-x) = 1 - F(x) is folded at 0: only the tail F(-|x|) has to be approximated, and a
    polynomial to a negative power suits a tail (as in Abramowitz and Stegun 7.1.28, for erfc). Far out the power
    overflows to infinity and the tail is 0, as it should be.
    """
    size = mx.abs(x)
    power = _horner(size, coefficients)
    for _ in range(4):
        power = power * power
    return mx.maximum(x, 0) - size / power


# tanh(x) = x P(x²) / Q(x²), highest power first: the minimax fit of Eigen's `generic_fast_tanh_float` and of XLA.
# Beyond the bound it is 1 in float32.
_TANH_BOUND = 7.90531110763549805
_TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def rational_silu(x: mx.array) -> mx.array:
    """`silu` by sigmoid(x) = (1 + tanh(x / 2)) / 2; its tail is too long for `folded`."""
    half = 0.5 * x
    bounded = mx.clip(half, -_TANH_BOUND, _TANH_BOUND)
    square = bounded * bounded
    return half + half * (bounded * _horner(square, _TANH_P) / _horner(square, _TANH_Q))


def _horner(x: mx.array, coefficients: tuple[float, ...]) -> mx.array:
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


# By the name that config.json gives.
NATIVE: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": silu,
    "relu": relu,
}
VECTORISED: dict[str, Activation] = {
    "gelu": partial(folded, coefficients=_GELU),
    "gelu_new": partial(folded, coefficients=_GELU_TANH),
    "gelu_pytorch_tanh": partial(folded, coefficients=_GELU_TANH),
    "silu": rational_silu,
    "relu": relu,
}
