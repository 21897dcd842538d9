import numpy as np
import pytest

from akidb_mlx.errors import InferenceError
from akidb_mlx.vectors import finish_vectors


def finish(rows, windows=None, dimensions=2, normalize=True):
    pooled = np.array(rows, dtype=np.float32)
    return finish_vectors(pooled, windows or [[1]] * len(rows), dimensions, normalize)


def test_rows_are_normalised():
    assert np.allclose(finish([[3, 4], [0, -2]]), [[0.6, 0.8], [0, -1]])


def test_dimensions_are_cut_before_the_length_is_taken():
    assert np.allclose(finish([[3, 4, 1000]]), [[0.6, 0.8]])


def test_rows_can_stay_as_they_are():
    assert finish([[3, 4, 5]], normalize=False).tolist() == [[3, 4]]


def test_the_result_is_contiguous_float32():
    found = finish([[3, 4, 5], [1, 2, 3]])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def test_no_rows():
    assert finish_vectors(np.empty((0, 3), np.float32), [], 2, normalize=True).shape == (0, 2)


def test_windows_are_averaged_by_token_count():
    """By hand: (3 (1, 0) + 1 (0, 1)) / 4 = (0.75, 0.25), whose length is 0.7906; the second text has one window."""
    found = finish([[5, 0], [0, 7], [0, 2]], windows=[[3, 1], [9]])
    assert np.allclose(found, [[0.75 / 0.790569, 0.25 / 0.790569], [0, 1]], atol=1e-6)


def test_windows_that_are_not_normalised_are_averaged_as_they_are():
    assert np.allclose(finish([[4, 0], [0, 8]], windows=[[3, 1]], normalize=False), [[3, 2]])


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [0, 0], [-np.inf, np.nan]])
def test_a_row_that_is_no_vector_fails_its_text(bad):
    with pytest.raises(InferenceError, match="vector for text 1 ") as caught:
        finish([[1, 0], [0, 1], bad], windows=[[1], [1, 1]])
    assert caught.value.index == 1


def test_without_normalisation_zero_is_a_value_and_nan_is_not():
    assert finish([[0, 0]], normalize=False).tolist() == [[0, 0]]
    with pytest.raises(InferenceError):
        finish([[np.nan, 0]], normalize=False)


def test_windows_that_cancel_fail_their_text():
    with pytest.raises(InferenceError, match="vector for text 0 "):
        finish([[1, 0], [-1, 0]], windows=[[1, 1]])
