"""Fit the approximations in akidb_mlx/backends/mlx/activations.py.

python -m benchmarks.fit_activations

Both fits minimise the largest error: that of a continued fraction to a power by reweighted least squares (Lawson 1961),
that of a polynomial to a negative power by linear programming.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, linprog
from scipy.special import log_ndtr

Values = NDArray[np.float64]

_ROUNDS = 60
_POWER = 16


def fit_fraction(
    tail: Callable[[Values], Values], weight: Callable[[Values], Values], end: float, squarings: int, start: list[float]
) -> Values:
    """Return the coefficients of `power_tail` that minimise the largest weighted error between 0 and `end`."""
    a = _chebyshev_points(end)
    power = 1 << squarings

    def error(c: Values) -> Values:
        return np.asarray(1e6 * weight(a) * ((c[0] + c[1] / (a + c[2] + c[3] / (a + c[4]))) ** power - tail(a)))

    coefficients, best, smallest = np.array(start), np.array(start), np.inf
    weights = np.ones_like(a)
    for _ in range(_ROUNDS):
        coefficients = least_squares(lambda c, w=weights: w * error(c), coefficients, max_nfev=50).x
        errors = np.abs(error(coefficients))
        if errors.max() < smallest:
            best, smallest = coefficients, errors.max()
        weights = weights * (errors / errors.max() + 1e-3) ** 0.3
        weights /= weights.mean()
    return best


def fit_polynomial(log_tail: Callable[[Values], Values], end: float, degree: int) -> Values:
    """Return the coefficients, lowest power first, of a polynomial p with p(a)^-16 ≈ exp(log_tail(a)).

    They minimise the largest error of a p(a)^-16, divided by max(1, a), between 0 and `end`.
    """
    a = _chebyshev_points(end)
    target = np.exp(-log_tail(a) / _POWER)
    weight = _POWER * a * np.exp(log_tail(a) * (1 + 1 / _POWER)) / np.maximum(1, a)
    powers = weight[:, None] * np.vander(a / end, degree + 1, increasing=True)
    slack = np.full((len(a), 1), 1e-6)
    solution = linprog(
        np.eye(degree + 2)[-1],
        A_ub=np.block([[powers, -slack], [-powers, -slack]]),
        b_ub=np.concatenate([weight * target, -weight * target]),
        bounds=[*[(None, None)] * (degree + 1), (0, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return np.asarray(solution.x[:-1] / end ** np.arange(degree + 1))


def _chebyshev_points(end: float) -> Values:
    return np.asarray(end * (1 - np.cos(np.linspace(0, np.pi, 1200))) / 2)


def _gelu_tanh_log_tail(a: Values) -> Values:
    """Return log F(-a), where x F(x) = x / (1 + exp(-2u)) and u = √(2/π) (x + 0.044715 x³)."""
    return np.asarray(-np.logaddexp(0, 2 * np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


def main() -> None:
    found = {
        "_GELU": fit_polynomial(lambda a: np.asarray(log_ndtr(-a)), 5.6, 5)[::-1],
        "_EXP": fit_fraction(lambda a: np.exp(-a), lambda a: np.exp(a / 4), 20, 4, [0.9, -180, 95, 3100, -3]),
        "_GELU_TANH": fit_polynomial(_gelu_tanh_log_tail, 5.2, 6)[::-1],
    }
    for name, coefficients in found.items():
        print(name, [float(f"{c:.9g}") for c in coefficients])


if __name__ == "__main__":
    main()
