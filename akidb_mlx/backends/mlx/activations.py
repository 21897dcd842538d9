"""Activation functions: by MLX's own functions, and by approximations that vectorise on its CPU backend.

MLX's own `erf`, `tanh` and `sigmoid` are right for a GPU. On its CPU backend they are scalar library calls, 5 to 10
times slower than the matrix products around them; there, approximations made of multiplications, divisions and
additions, which vectorise, replace them. Largest error of each activation, either way: 3e-6 of max(1, |x|).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx

Activation = Callable[[mx.array], mx.array]


def gelu(x: mx.array) -> mx.array:
    """Compute the Gaussian error linear unit, x Φ(x) with the normal distribution Φ (Hendrycks and Gimpel 2016)."""
    return (0.5 * x) * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """Compute the tanh approximation of `gelu`; "gelu_new" and "gelu_pytorch_tanh" in configurations."""
    return (0.5 * x) * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def silu(x: mx.array) -> mx.array:
    """Compute the sigmoid linear unit, x sigmoid(x)."""
    return x * mx.sigmoid(x)


def relu(x: mx.array) -> mx.array:
    """Compute the rectified linear unit, max(x, 0)."""
    return mx.maximum(x, 0)


# For `power_tail`, fitted by benchmarks/fit_activations.py.
_EXP = (0.838642765, -161.238531, 93.3133881, 3076.18329, -2.81552818)
# Beyond it, `negative_exp` would rise again. It returns 1e-19 there, which next to 1 is nothing.
_EXP_BOUND = 58.0


def power_tail(a: mx.array, coefficients: tuple[float, ...], squarings: int) -> mx.array:
    """Compute r(a) squared `squarings` times, with r(a) = c0 + c1 / (a + c2 + c3 / (a + c4)), for a ≥ 0.

    A continued fraction is the cheapest form of a rational function, and a power of one suits a tail that falls faster
    than any fraction (as in Abramowitz and Stegun 7.1.28, for erfc). It has no pole where a ≥ 0.
    """
    first, second, third, fourth, fifth = coefficients
    value = second / (fourth / (a + fifth) + a + third) + first
    for _ in range(squarings):
        value = mx.square(value)
    return value


def negative_exp(a: mx.array) -> mx.array:
    """Compute exp(-a) for a ≥ 0, to 1.5e-7 exp(-a / 4) plus the rounding of four squarings, 2e-6 exp(-a)."""
    return power_tail(mx.minimum(a, _EXP_BOUND), _EXP, squarings=4)


# For `negative_power`, highest power first, fitted by benchmarks/fit_activations.py.
_GELU = (9.53245591e-05, -9.07432492e-05, 0.00360334716, 0.0219562862, 0.0521105601, 1.04427049)
_GELU_TANH = (2.43848954e-05, 8.01262474e-05, -0.000117389443, 0.00352760546, 0.0219967142, 0.0520938252, 1.04427241)


def negative_power(x: mx.array, coefficients: tuple[float, ...]) -> mx.array:
    """Compute max(x, 0) - |x| / p(|x|)^16 with a polynomial p; it fits these tails closer than `power_tail`."""
    size = mx.abs(x)
    power = size * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        power = power * size + coefficient
    for _ in range(4):
        power = mx.square(power)
    return mx.maximum(x, 0) - size / power


def vectorised_gelu(x: mx.array) -> mx.array:
    """Compute `gelu` to 1e-6 of max(1, |x|): three times that shows in a deep model's vectors."""
    return negative_power(x, _GELU)


def vectorised_gelu_tanh(x: mx.array) -> mx.array:
    """Compute `gelu_tanh`."""
    return negative_power(x, _GELU_TANH)


def vectorised_silu(x: mx.array) -> mx.array:
    """Compute `silu` as max(x, 0) - |x| sigmoid(-|x|)."""
    size = mx.abs(x)
    tail = negative_exp(size)
    return mx.maximum(x, 0) - size * (tail / (1 + tail))


# By the name that config.json gives.
NATIVE: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": silu,
    "relu": relu,
}
VECTORISED: dict[str, Activation] = {
    "gelu": vectorised_gelu,
    "gelu_new": vectorised_gelu_tanh,
    "gelu_pytorch_tanh": vectorised_gelu_tanh,
    "silu": vectorised_silu,
    "relu": relu,
}

# The classes of torch.nn that a Dense module may name, by the functions that they compute with their own defaults.
DENSE: dict[str, Activation] = {
    "CELU": lambda x: mx.where(x > 0, x, mx.expm1(x)),
    "ELU": lambda x: mx.where(x > 0, x, mx.expm1(x)),
    "GELU": gelu,
    "Hardsigmoid": lambda x: mx.clip(x / 6 + 0.5, 0, 1),
    "Hardswish": lambda x: x * mx.clip(x / 6 + 0.5, 0, 1),
    "Hardtanh": lambda x: mx.clip(x, -1, 1),
    "Identity": lambda x: x,
    "LeakyReLU": lambda x: mx.where(x > 0, x, 0.01 * x),
    "LogSigmoid": lambda x: -mx.logaddexp(-x, 0),
    "Mish": lambda x: x * mx.tanh(mx.logaddexp(x, 0)),
    "ReLU": relu,
    "ReLU6": lambda x: mx.clip(x, 0, 6),
    "SELU": lambda x: 1.0507009873554805 * mx.where(x > 0, x, 1.6732632423543772 * mx.expm1(x)),
    "SiLU": silu,
    "Sigmoid": mx.sigmoid,
    "Softplus": lambda x: mx.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + mx.abs(x)),
    "Tanh": mx.tanh,
}
