"""Activation functions, with two ways to compute what they are made of.

MLX's own `erf`, `tanh` and `sigmoid` are right for a GPU. On its CPU backend they are scalar library calls, 5 to 10
times slower than the matrix products around them; there, rational approximations stand in for them, made of
multiplications and additions, which vectorise. Largest error of each activation built on them: 1e-6 of max(1, |x|).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import mlx.core as mx

Activation = Callable[[mx.array], mx.array]

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

# erf(x) = x P(x²) / Q(x²), the fit of XLA's `ErfImpl32Cephes`; beyond the bound it is 1 to the last bit but one.
_ERF_BOUND = 3.7439211627767994
_ERF_P = (0.00022905065861350646, 0.0034082910107109506, 0.050955695062380861, 0.18520832239976145, 1.128379143519084)
_ERF_Q = (
    -1.1791602954361697e-7,
    0.000023547966471313185,
    0.0010179625278914885,
    0.014070470171167667,
    0.11098505178285362,
    0.49746925110067538,
    1.0,
)


def rational_tanh(x: mx.array) -> mx.array:
    """Hyperbolic tangent, to 4e-7."""
    return _odd_rational(x, _TANH_BOUND, _TANH_P, _TANH_Q)


def rational_erf(x: mx.array) -> mx.array:
    """Gauss error function, to 4e-7."""
    return _odd_rational(x, _ERF_BOUND, _ERF_P, _ERF_Q)


def rational_sigmoid(x: mx.array) -> mx.array:
    """Logistic function, as (1 + tanh(x / 2)) / 2."""
    return 0.5 + 0.5 * rational_tanh(0.5 * x)


def gelu(x: mx.array, erf: Activation) -> mx.array:
    """Gaussian error linear unit: x Φ(x), Φ being the normal distribution function (Hendrycks and Gimpel 2016)."""
    return (0.5 * x) * (1 + erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array, tanh: Activation) -> mx.array:
    """The tanh approximation of `gelu` from the same paper; "gelu_new" and "gelu_pytorch_tanh" in configurations."""
    return (0.5 * x) * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def silu(x: mx.array, sigmoid: Activation) -> mx.array:
    """Sigmoid linear unit: x sigmoid(x)."""
    return x * sigmoid(x)


def relu(x: mx.array) -> mx.array:
    """max(x, 0)."""
    return mx.maximum(x, 0)


# By the name that config.json gives.
NATIVE: dict[str, Activation] = {
    "gelu": partial(gelu, erf=mx.erf),
    "gelu_new": partial(gelu_tanh, tanh=mx.tanh),
    "gelu_pytorch_tanh": partial(gelu_tanh, tanh=mx.tanh),
    "silu": partial(silu, sigmoid=mx.sigmoid),
    "relu": relu,
}
VECTORISED: dict[str, Activation] = {
    "gelu": partial(gelu, erf=rational_erf),
    "gelu_new": partial(gelu_tanh, tanh=rational_tanh),
    "gelu_pytorch_tanh": partial(gelu_tanh, tanh=rational_tanh),
    "silu": partial(silu, sigmoid=rational_sigmoid),
    "relu": relu,
}


def _odd_rational(x: mx.array, bound: float, p: tuple[float, ...], q: tuple[float, ...]) -> mx.array:
    x = mx.clip(x, -bound, bound)
    square = x * x
    return x * _horner(square, p) / _horner(square, q)


def _horner(x: mx.array, coefficients: tuple[float, ...]) -> mx.array:
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value
