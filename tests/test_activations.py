import numpy as np
import pytest
from scipy.special import erf, expit

from tests.support import golden

GRID = np.concatenate([np.linspace(-30, 30, 200_001), np.logspace(1, 6, 501), -np.logspace(1, 6, 501)])
X = GRID.astype(np.float32).astype(np.float64)
REFERENCE = {
    "gelu": 0.5 * X * (1 + erf(X / np.sqrt(2))),
    "gelu_new": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "gelu_pytorch_tanh": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "silu": X * expit(X),
    "relu": np.maximum(X, 0),
}


@pytest.mark.parametrize("table", ["NATIVE", "VECTORISED"])
@pytest.mark.parametrize("name", REFERENCE)
def test_activations_equal_scipy(table, name):
    import mlx.core as mx

    from akidb_mlx.backends.mlx import activations

    with mx.stream(mx.cpu):
        found = np.array(getattr(activations, table)[name](mx.array(X.astype(np.float32))))
    assert (np.abs(found - REFERENCE[name]) / np.maximum(1, np.abs(X))).max() <= 3e-6


def test_both_tables_know_the_same_names():
    from akidb_mlx.backends.mlx import activations

    assert set(activations.NATIVE) == set(activations.VECTORISED) == set(REFERENCE)


def test_the_negative_exponential_equals_numpys():
    """To the error that it promises; far out it is nothing, and not a slow number below 1e-38."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx.activations import negative_exp

    a = np.concatenate([np.linspace(0, 60, 60_001), [1e3, 1e9, 1e30]]).astype(np.float32)
    with mx.stream(mx.cpu):
        found = np.array(negative_exp(mx.array(a)))
    exact = np.exp(-a.astype(np.float64))
    allowed = 1.5e-7 * np.exp(-a / 4) + 2e-6 * exact
    assert (np.abs(found - exact) <= allowed)[:-3].all()
    assert (found[-3:] < 1e-18).all()
    assert (found > 1e-30).all()


def test_the_activations_of_dense_modules_are_torchs():
    """Each to the rounding of float32."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx.activations import DENSE
    from akidb_mlx.checkpoint.head import DENSE_ACTIVATIONS

    assert set(DENSE) == set(DENSE_ACTIVATIONS)
    stored = golden("outputs")
    for name, function in DENSE.items():
        with mx.stream(mx.cpu):
            found = np.array(function(mx.array(stored["x"])))
        assert np.allclose(found, stored[name], rtol=2e-6, atol=1e-6), name
