"""A text's vector does not depend on what it is embedded with."""

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akidb_mlx import EmbeddingService, Settings
from tests.support import GOLDENS, TEXTS

NAMES = ["tiny-bert", "tiny-roberta", "tiny-qwen3", "tiny-qwen3-4bit", "tiny-gemma3"]
mixes = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=12)


@cache
def alone(service: EmbeddingService) -> np.ndarray:
    return np.concatenate([service.embed_array([text]) for text in TEXTS])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mix=mixes)
def test_any_mix_equals_each_text_alone(service, name, mix):
    one = service(name)
    assert np.abs(one.embed_array([TEXTS[i] for i in mix]) - alone(one)[mix]).max() <= 1e-5


@pytest.mark.parametrize("budget", [1, 100, 100_000])
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-gemma3"])
def test_any_token_budget_gives_the_same(service, name, budget):
    with EmbeddingService(str(GOLDENS / name), device="cpu", settings=Settings(token_budget=budget)) as one:
        assert np.abs(one.embed_array(TEXTS) - alone(service(name))).max() <= 1e-5


def test_real_weights_too(minilm):
    rng = np.random.default_rng(5)
    for _ in range(3):
        mix = rng.permutation(len(TEXTS))
        assert np.abs(minilm.embed_array([TEXTS[i] for i in mix]) - alone(minilm)[mix]).max() <= 1e-5
