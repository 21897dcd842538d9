"""Fit the polynomials in akidb_mlx/embedding/activations.py.

python -m benchmarks.fit_activations

For an activation f(x) = x F(x) with F(-x) = 1 - F(x), fits p so that F(-a) = p(a)^-16 for a ≥ 0, with the smallest
largest error of f(a) relative to max(1, a), by linear programming on the linearised error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import log_ndtr

_POWER = 16
_DEGREE = 6


def log_tail_of_gelu(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """log F(-a) of x Φ(x)."""
    return np.asarray(log_ndtr(-a))


def log_tail_of_gelu_tanh(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """log F(-a) of its tanh approximation, x / (1 + exp(-2u)) with u = √(2/π) (x + 0.044715 x³)."""
    return -np.logaddexp(0, 2 * np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))


def fit(log_tail: NDArray[np.float64], a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of p, lowest power first."""
    target = np.exp(-log_tail / _POWER)
    weight = _POWER * a * np.exp(log_tail * (1 + 1 / _POWER)) / np.maximum(1, a)
    powers = weight[:, None] * np.vander(a / a.max(), _DEGREE + 1, increasing=True)
    slack = np.full((len(a), 1), 1e-6)
    solution = linprog(
        np.eye(_DEGREE + 2)[-1],
        A_ub=np.block([[powers, -slack], [-powers, -slack]]),
        b_ub=np.concatenate([weight * target, -weight * target]),
        bounds=[*[(None, None)] * (_DEGREE + 1), (0, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return np.asarray(solution.x[:-1] / a.max() ** np.arange(_DEGREE + 1))


def main() -> None:
    for name, log_tail, end in (("gelu", log_tail_of_gelu, 5.6), ("gelu_tanh", log_tail_of_gelu_tanh, 5.2)):
        a = end * (1 - np.cos(np.linspace(0, np.pi, 1500))) / 2
        print(name, [float(f"{c:.9g}") for c in fit(log_tail(a), a)[::-1]])


if __name__ == "__main__":
    main()
