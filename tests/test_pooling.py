"""Pooling against a table worked out by hand."""

import numpy as np
import pytest

HIDDEN = [
    [[1.0, 10.0], [2.0, 20.0], [6.0, 60.0], [8.0, 80.0]],  # four real tokens
    [[4.0, -4.0], [6.0, -6.0], [9e9, 9e9], [9e9, 9e9]],  # two, and padding
    [[7.0, 0.5], [9e9, 9e9], [9e9, 9e9], [9e9, 9e9]],  # one, and padding
]
EXPECTED = {
    "mean": [[4.25, 42.5], [5.0, -5.0], [7.0, 0.5]],
    "cls": [[1.0, 10.0], [4.0, -4.0], [7.0, 0.5]],
    "last": [[8.0, 80.0], [6.0, -6.0], [7.0, 0.5]],
}


def pool(hidden, lengths, mode, dtype="float32"):
    import mlx.core as mx

    from akidb_mlx.backends.mlx.encoders import TokenBatch
    from akidb_mlx.backends.mlx.layers import at_positions
    from akidb_mlx.backends.mlx.pooling import pool, pooled_positions

    values = mx.array(hidden, dtype=getattr(mx, dtype))
    batch = TokenBatch(mx.zeros(values.shape[:2], mx.int32), mx.array(lengths), padded=min(lengths) < values.shape[1])
    token = pooled_positions(batch, mode)
    return pool(values if token is None else at_positions(values, token), batch, mode)


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_with_padding(mode):
    assert np.array(pool(HIDDEN, [4, 2, 1], mode)).tolist() == EXPECTED[mode]


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_without_padding(mode):
    assert np.array(pool(HIDDEN[:1], [4], mode)).tolist() == EXPECTED[mode][:1]


@pytest.mark.parametrize("mode", EXPECTED)
def test_padding_that_is_not_a_number_does_not_reach_a_vector(mode):
    poisoned = [[[3.0, 5.0], [float("nan"), float("inf")]]]
    assert np.array(pool(poisoned, [1], mode)).tolist() == [[3.0, 5.0]]


@pytest.mark.parametrize("mode", EXPECTED)
def test_the_result_is_float32_whatever_goes_in(mode):
    import mlx.core as mx

    assert pool(HIDDEN[:1], [4], mode, dtype="bfloat16").dtype == mx.float32


def test_a_mean_of_many_half_precision_values_does_not_lose_them():
    """2 048 times 1 in float16 would stop growing at 2 048; the mean of 4 096 would be 0.5."""
    assert np.array(pool([[[1.0]] * 4096], [4096], "mean", dtype="float16")).tolist() == [[1.0]]
