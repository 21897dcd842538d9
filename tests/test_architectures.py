"""Every tiny model with quantised weights, and by the way of a GPU forced on the CPU; float32 is in test_goldens.py."""

import numpy as np
import pytest

from benchmarks.architectures import (
    MAX_DIFFERENCE,
    MIN_COSINE,
    MIN_QUANTISED_COSINE,
    SAMPLE,
    cosines,
    embed,
    half_precision,
    make_quantised,
)
from tests.support import GOLDENS, TINY, golden


@pytest.mark.parametrize("name", TINY)
def test_half_precision_stays_close_to_the_reference(name):
    vectors, expected = embed(GOLDENS / name, half_precision(name)), golden(name)["none"][SAMPLE]
    assert cosines(vectors, expected).min() >= MIN_COSINE
    assert np.abs(vectors - expected).max() > 1e-6  # it did not run in float32


@pytest.mark.parametrize("name", TINY)
def test_quantised_weights_give_the_vectors_of_the_numbers_they_stand_for(name, tmp_path):
    packed, plain = make_quantised(name, tmp_path)
    expected = embed(plain)
    assert np.abs(embed(packed) - expected).max() <= MAX_DIFFERENCE
    assert cosines(embed(packed, half_precision(name)), expected).min() >= MIN_QUANTISED_COSINE
