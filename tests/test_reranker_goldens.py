"""Scores equal those of sentence-transformers' CrossEncoder, or of the model card's own code, on tiny random models."""

import numpy as np
import pytest

from akidb_mlx import Reranker, Settings
from tests.goldens.make_rerankers import MODELS, pairs
from tests.support import GOLDENS, golden

PAIRS = pairs()


@pytest.fixture(scope="module", params=MODELS)
def reranker(request):
    with Reranker(GOLDENS / request.param, device="cpu") as reranker:
        yield reranker


def name_of(reranker):
    return reranker.model_name.rpartition("/")[2]


def test_scores_equal_the_references(reranker):
    expected = golden(name_of(reranker))
    assert np.abs(reranker.scores(PAIRS) - expected["default"]).max() < 1e-5
    assert np.abs(reranker.scores(PAIRS, prompt="Answer in English: ") - expected["own"]).max() < 1e-5


def test_a_pair_has_the_same_score_alone(reranker):
    together = reranker.scores(PAIRS)
    alone = np.concatenate([reranker.scores([pair]) for pair in PAIRS])
    assert np.abs(together - alone).max() < 1e-5


def test_pairs_that_are_too_long_are_among_them(reranker):
    batch = reranker.score_detailed(PAIRS)
    assert any(batch.truncated) and not all(batch.truncated)
    assert max(batch.token_counts) == reranker.max_tokens


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_the_way_of_a_gpu(name, precision, tolerance):
    settings = Settings(precision=precision)
    with Reranker(GOLDENS / name, device="cpu", settings=settings) as reranker:
        expected = golden(name)["default"]
        assert np.abs(reranker.scores(PAIRS) - expected).max() < tolerance * max(1, np.abs(expected).max())
