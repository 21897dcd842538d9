"""Keys that are missing, or that say the same in another way: the reference's vectors, not only some vectors."""

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from tests.dialects import DIALECTS, SAMPLE
from tests.support import GOLDENS


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDENS / "dialects.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_read_as_the_reference_reads_it(tmp_path, reference, name):
    with EmbeddingService(str(DIALECTS[name].make(tmp_path)), device="cpu") as one:
        assert np.abs(one.embed_array(SAMPLE) - reference[name]).max() <= 2e-5


def test_every_dialect_has_reference_vectors(reference):
    assert set(reference) == set(DIALECTS)


def test_a_truncate_dim_is_the_default_of_dimensions(tmp_path):
    with EmbeddingService(str(DIALECTS["truncate-dim"].make(tmp_path)), device="cpu") as one:
        info = one.get_model_info()
        assert (info["dimension"], info["native_dimension"], info["matryoshka"]) == (16, 64, True)
        whole = one.embed_array(SAMPLE, dimensions=64)
    with EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu") as plain:
        assert np.abs(whole - plain.embed_array(SAMPLE)).max() <= 1e-6
