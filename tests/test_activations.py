import numpy as np
import pytest
from scipy.special import erf, expit

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

    from akidb_mlx.embedding import activations

    with mx.stream(mx.cpu):
        found = np.array(getattr(activations, table)[name](mx.array(X.astype(np.float32))))
    assert (np.abs(found - REFERENCE[name]) / np.maximum(1, np.abs(X))).max() <= 1e-6


def test_both_tables_know_the_same_names():
    from akidb_mlx.embedding import activations

    assert set(activations.NATIVE) == set(activations.VECTORISED) == set(REFERENCE)
