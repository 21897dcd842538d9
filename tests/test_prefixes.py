"""A prompt that texts begin with is run once, and gives what running it with each text gives."""

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from tests.support import GOLDENS, LONGEST, TEXTS, copy_model, golden

PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@pytest.mark.parametrize(
    "name",
    [
        *("tiny-qwen3", "tiny-qwen3-4bit", "tiny-qwen3-windows", "tiny-qwen2", "tiny-llama", "tiny-mistral"),
        "tiny-ministral3",
    ],
)
@pytest.mark.parametrize("on_overflow", ["truncate", "chunk"])
def test_sharing_a_prompt_changes_nothing(monkeypatch, name, on_overflow):
    with EmbeddingService(str(GOLDENS / name), device="cpu") as one:
        shared = one.embed_array(TEXTS, prompt=PROMPT, on_overflow=on_overflow)
        tokens = one.get_metrics()["tokens"]
        monkeypatch.setattr("akidb_mlx.service.MIN_PREFIX", 10_000)
        whole = one.embed_array(TEXTS, prompt=PROMPT, on_overflow=on_overflow)
        prefix = len(one._tokenizers[""].prefix(PROMPT))
        saved = one.get_metrics()["tokens"] - 2 * tokens
    assert np.abs(shared - whole).max() <= 2e-6
    assert prefix > 15
    assert saved >= prefix * (len(set(TEXTS)) - 1)  # two texts are the same to some tokenizers


def test_calls_with_different_prompts_meet_without_mixing(service):
    one = service("tiny-qwen3")
    prompts = [PROMPT, PROMPT.replace("web", "code"), "", "query: "]
    texts = [text for i, text in enumerate(TEXTS) if i != LONGEST]
    alone = [one.embed_array(texts, prompt=prompt) for prompt in prompts]
    futures = [one.submit(texts, prompt=prompt) for prompt in prompts * 3]
    for future, expected in zip(futures, alone * 3, strict=True):
        assert np.abs(future.result(30).vectors - expected).max() <= 1e-6


def test_only_so_many_prompts_are_kept():
    with EmbeddingService(str(GOLDENS / "tiny-qwen3"), device="cpu") as one:
        for number in range(40):
            one.embed(["a"], prompt=f"{number} {PROMPT}")
        # The model belongs to the owner thread; what it keeps shows in the allocator's gauge.
        held = one.get_model_info()["memory"]["active"]
        for number in range(40, 80):
            one.embed(["a"], prompt=f"{number} {PROMPT}")
        assert one.get_model_info()["memory"]["active"] <= held * 1.1


@pytest.mark.parametrize("name", ["tiny-gemma3", "tiny-bert", "tiny-qwen3-both-sides", "tiny-eurobert-last"])
def test_a_model_that_sees_both_sides_shares_nothing(service, name):
    assert not service(name)._facts.shares_prefixes


def test_a_decoder_made_to_see_both_sides_shares_nothing(tmp_path):
    """Last-token pooling alone does not tell."""
    with EmbeddingService(str(copy_model("tiny-qwen3", tmp_path, is_causal=False)), device="cpu") as one:
        assert not one._facts.shares_prefixes
        assert np.abs(one.embed_array(TEXTS[:3]) - golden("tiny-qwen3")["none"][:3]).max() > 1e-3
