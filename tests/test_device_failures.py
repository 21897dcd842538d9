"""Failures of the device under the MLX backend, on streams of the real CPU device; see also `test_engine.py`."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.errors import InferenceError
from tests.support import GOLDENS

BERT = str(GOLDENS / "tiny-bert")


@pytest.fixture
def fails_on(monkeypatch):
    """Return a function that makes the device fail on batches with a token, so many times; steps are pipelined."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx import model as models
    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    monkeypatch.setattr(ExecutionPlan, "pipelined", property(lambda _: True))
    forward = models.EmbeddingModel._forward
    left = {}

    def failing(self, rows, prefix):
        vectors = forward(self, rows, prefix)
        for token in set(rows.ids.ravel().tolist()) & set(left):
            if left[token]:
                left[token] -= 1
                # Singular only on the device: the error comes when it is computed.
                return vectors + mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu).sum()
        return vectors

    monkeypatch.setattr(models.EmbeddingModel, "_forward", failing)
    return left.__setitem__


@pytest.fixture
def texts():
    return [f"{word} " * 40 for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]


def first_token(text):
    return Tokenizer.from_file(f"{BERT}/tokenizer.json").encode(text).ids[1]


def test_a_failure_that_passes_changes_no_vector(fails_on, texts):
    with EmbeddingService(BERT, device="cpu", settings=Settings(token_budget=64)) as service:
        expected = service.embed_array(texts)
        for text in texts:
            for failures in (1, 2):
                fails_on(first_token(text), failures)
                found = [future.result(30) for future in [service.submit([each]) for each in texts]]
                assert np.abs(np.array([batch.vectors[0] for batch in found]) - expected).max() < 1e-6


def test_a_failure_that_stays_is_that_of_its_text(fails_on, texts):
    with EmbeddingService(BERT, device="cpu", settings=Settings(token_budget=64)) as service:
        expected = service.embed_array(texts)
        for bad, text in enumerate(texts):
            fails_on(first_token(text), 1000)
            futures = [service.submit([each]) for each in texts]
            for i, future in enumerate(futures):
                if i == bad:
                    with pytest.raises(InferenceError):
                        future.result(30)
                else:
                    assert np.abs(future.result(30).vectors[0] - expected[i]).max() < 1e-6
            fails_on(first_token(text), 0)
