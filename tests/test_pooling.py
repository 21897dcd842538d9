"""Pooling against a table worked out by hand."""

import numpy as np
import pytest

from akidb_mlx.checkpoint.head import Pooling

HIDDEN = [
    [[1.0, 10.0], [2.0, 20.0], [6.0, 60.0], [8.0, 80.0]],  # four real tokens
    [[4.0, -4.0], [6.0, -6.0], [9e9, 9e9], [9e9, 9e9]],  # two, and padding
    [[7.0, 0.5], [9e9, 9e9], [9e9, 9e9], [9e9, 9e9]],  # one, and padding
]
EXPECTED = {
    "mean": [[4.25, 42.5], [5.0, -5.0], [7.0, 0.5]],
    "cls": [[1.0, 10.0], [4.0, -4.0], [7.0, 0.5]],
    "last": [[8.0, 80.0], [6.0, -6.0], [7.0, 0.5]],
    "max": [[8.0, 80.0], [6.0, -4.0], [7.0, 0.5]],
    "mean_sqrt_len_tokens": [[8.5, 85.0], [10 / 2**0.5, -10 / 2**0.5], [7.0, 0.5]],
    "weightedmean": [[5.5, 55.0], [16 / 3, -16 / 3], [7.0, 0.5]],  # (1 + 4 + 18 + 32) / 10, (4 + 12) / 3
}
# With the first token left out; the weights of the weighted mean stay those of the positions.
WITHOUT_FIRST = {
    "mean": [[16 / 3, 160 / 3], [6.0, -6.0]],
    "cls": [[2.0, 20.0], [6.0, -6.0]],
    "last": [[8.0, 80.0], [6.0, -6.0]],
    "max": [[8.0, 80.0], [6.0, -6.0]],
    "mean_sqrt_len_tokens": [[16 / 3**0.5, 160 / 3**0.5], [6.0, -6.0]],
    "weightedmean": [[6.0, 60.0], [6.0, -6.0]],  # (4 + 18 + 32) / 9
}


def pool(hidden, lengths, *modes, dtype="float32", unpooled=0):
    import mlx.core as mx

    from akidb_mlx.backends.mlx.encoders import TokenBatch
    from akidb_mlx.backends.mlx.layers import at_positions
    from akidb_mlx.backends.mlx.pooling import pool, pooled_positions

    values = mx.array(hidden, dtype=getattr(mx, dtype))
    padded = min(lengths) < values.shape[1]
    batch = TokenBatch(mx.zeros(values.shape[:2], mx.int32), mx.array(lengths), padded, unpooled=unpooled)
    token = pooled_positions(batch, Pooling(modes))
    return pool(values if token is None else at_positions(values, token), batch, Pooling(modes))


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_with_padding(mode):
    assert np.allclose(pool(HIDDEN, [4, 2, 1], mode), EXPECTED[mode], rtol=1e-6)


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_without_padding(mode):
    assert np.allclose(pool(HIDDEN[:1], [4], mode), EXPECTED[mode][:1], rtol=1e-6)


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_without_the_prompt(mode):
    assert np.allclose(pool(HIDDEN[:2], [4, 2], mode, unpooled=1), WITHOUT_FIRST[mode], rtol=1e-6)
    assert np.allclose(pool(HIDDEN[:1], [4], mode, unpooled=1), WITHOUT_FIRST[mode][:1], rtol=1e-6)


@pytest.mark.parametrize("modes", [("cls", "mean"), ("mean", "cls"), ("last", "cls"), tuple(EXPECTED)])
def test_several_modes_stand_side_by_side_in_their_order(modes):
    expected = np.concatenate([EXPECTED[mode] for mode in modes], axis=1)
    assert np.allclose(pool(HIDDEN, [4, 2, 1], *modes), expected, rtol=1e-6)


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
