"""Vectors against those that sentence-transformers computed (tests/goldens/README.md)."""

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from benchmarks.quantize import quantize
from tests.support import LONGEST, TEXTS, TINY, copy_model, edit_json, golden, sts_pairs, sts_spearman

EXACT = [(name, prompt) for name in TINY for prompt in golden(name)]


def embed(service: EmbeddingService, prompt: str) -> np.ndarray:
    return service.embed_array(TEXTS, input_type=None if prompt == "none" else prompt)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(("name", "prompt"), EXACT)
def test_tiny_models_are_exact(service, name, prompt):
    assert np.abs(embed(service(name), prompt) - golden(name)[prompt]).max() <= 2e-5


@pytest.mark.parametrize("prompt", ["none", "query", "document", "STS"])
def test_a_community_gemma_conversion_is_exact(service, prompt):
    assert cosines(embed(service("tiny-gemma3-4bit"), prompt), golden("tiny-gemma3-4bit")[prompt]).min() >= 0.99999


@pytest.mark.parametrize("prompt", ["none", "query"])
def test_a_community_qwen_conversion_is_exact(service, prompt):
    result = cosines(embed(service("tiny-qwen3-4bit"), prompt), golden("tiny-qwen3-4bit")[prompt])
    assert np.delete(result, LONGEST).min() >= 0.99999


@pytest.mark.parametrize("prompt", ["none", "query"])
def test_a_community_qwen_conversion_is_exact_when_it_cuts(tmp_path, prompt):
    """The conversion lost the limit of 512 tokens that the vector of the longest text was made with."""
    directory = copy_model("tiny-qwen3-4bit", tmp_path)
    edit_json(directory / "sentence_bert_config.json", max_seq_length=512)
    with EmbeddingService(str(directory), device="cpu") as one:
        assert cosines(embed(one, prompt), golden("tiny-qwen3-4bit")[prompt]).min() >= 0.99999


def test_minilm_is_exact(minilm):
    assert np.abs(embed(minilm, "none") - golden("all-MiniLM-L6-v2")["none"]).max() <= 1e-5


@pytest.mark.real_weights
def test_embeddinggemma_is_exact(embeddinggemma):
    """All 44 texts, one of 579 tokens (beyond the sliding window), with each prompt."""
    with EmbeddingService(str(embeddinggemma), device="cpu") as one:
        for prompt, expected in golden("embeddinggemma-300m").items():
            assert np.abs(embed(one, prompt) - expected).max() <= 1e-5, prompt


@pytest.mark.real_weights
def test_mpnet_is_exact(mpnet):
    """All 44 texts, some longer than the 384 tokens that it takes."""
    with EmbeddingService(str(mpnet), device="cpu") as one:
        assert np.abs(embed(one, "none") - golden("all-mpnet-base-v2")["none"]).max() <= 1e-5


# Spearman's correlation by the vectors of sentence-transformers 6.2, from the same weights in float32.
@pytest.mark.real_weights
@pytest.mark.parametrize(("pairs", "expected"), [(300, 0.94185), pytest.param(None, 0.83422, marks=pytest.mark.load)])
def test_mpnet_has_the_references_quality(mpnet, pairs, expected):
    first, second, _ = sts_pairs()
    with EmbeddingService(str(mpnet), device="cpu") as one:
        vectors = one.embed_array([*first[:pairs], *second[:pairs]])
    assert sts_spearman(vectors) == pytest.approx(expected, abs=2e-4)


# At most 0.003 below the correlation by the reference's vectors in float32.
@pytest.mark.real_weights
@pytest.mark.parametrize(("pairs", "least"), [(300, 0.942), pytest.param(None, 0.878, marks=pytest.mark.load)])
def test_embeddinggemma_quantised_keeps_its_quality(embeddinggemma, tmp_path, pairs, least):
    quantize(embeddinggemma, tmp_path / "4bit", bits=4, group_size=64)
    first, second, _ = sts_pairs()
    with EmbeddingService(str(tmp_path / "4bit"), device="cpu") as one:
        assert one.get_model_info()["quantization"] == "4-bit affine, group 64"
        vectors = one.embed_array([*first[:pairs], *second[:pairs]], input_type="STS")
    assert sts_spearman(vectors) >= least
