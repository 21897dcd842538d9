"""Decoders as their publishers write them, and what of them is refused."""

import json
import shutil

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Reranker
from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.tokenization.classes import find_class
from akidb_mlx.errors import ModelLoadError
from tests.support import GOLDENS, TEXTS, copy_model, edit_json, edit_tensors, golden

VOYAGE = "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"
WIDE = [i for i, text in enumerate(TEXTS) if len(text) > 300]


def as_voyage(tmp_path, **changes):
    """Write tiny-qwen3-linear as voyage-4-nano is: the linear layer is the encoder's, and the code its own."""
    from safetensors.numpy import load_file

    changes = {"use_bidirectional_attention": True, "auto_map": {"AutoModel": VOYAGE}, **changes}
    directory = copy_model("tiny-qwen3-linear", tmp_path, is_causal=None, num_labels=40, **changes)
    linear = load_file(directory / "2_Dense/model.safetensors")["linear.weight"]
    edit_tensors(
        directory / "model.safetensors",
        lambda tensors: {"linear.weight": linear, **{f"model.{name}": array for name, array in tensors.items()}},
    )
    shutil.rmtree(directory / "2_Dense")
    modules = json.loads((directory / "modules.json").read_text())
    (directory / "modules.json").write_text(json.dumps([one for one in modules if one["path"] != "2_Dense"]))
    return directory


@pytest.mark.parametrize("prompt", ["none", "query"])
def test_voyage_is_exact(tmp_path, prompt):
    expected = golden("tiny-qwen3-linear")
    with EmbeddingService(str(as_voyage(tmp_path)), device="cpu") as one:
        vectors = one.embed_array(TEXTS, input_type=None if prompt == "none" else prompt)
        assert not one._facts.shares_prefixes
        assert one.dimension == 40
    assert np.abs(vectors - expected[prompt]).max() <= 2e-5


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"use_bidirectional_attention": None}, "auto_map asks for code of the model's own"),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "auto_map asks for code of the model's own"),
    ],
)
def test_another_code_than_voyages_is_refused(tmp_path, changes, problem):
    with pytest.raises(ModelLoadError, match=problem):
        EmbeddingService(str(as_voyage(tmp_path, **changes)), device="cpu")


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("tiny-eurobert", {"is_causal": True}, "is_causal = True is not supported"),
        ("tiny-eurobert", {"sliding_window": 8}, "sliding_window = 8 is not supported"),
        ("tiny-llama", {"num_key_value_heads": 3}, "3 key heads do not divide 4 heads"),
        ("tiny-llama", {"head_dim": None, "hidden_size": 34}, "4 heads do not divide a hidden_size of 34"),
        ("tiny-llama", {"layer_types": ["full_attention"] * 3}, "layer_types = "),
        ("tiny-mistral", {"layer_types": ["sliding_attention"] * 3}, "layer_types = "),
        ("tiny-mistral", {"sliding_window": 0}, "sliding_window = 0 is not supported"),
        ("tiny-qwen2", {"layer_types": ["sliding_attention"] * 3}, "not supported without a window"),
        ("tiny-qwen2", {"attention_bias": True}, "attention_bias = True is"),
        ("tiny-gemma3-causal", {"is_causal": False}, "is_causal = False is not supported"),
        ("tiny-ministral3", {"rope_parameters": {"rope_theta": 1e4}}, "llama_4_scaling_beta = None"),
    ],
)
def test_a_key_that_is_not_honoured_is_refused(tmp_path, name, changes, problem):
    with pytest.raises(ModelLoadError, match=problem):
        EmbeddingService(str(copy_model(name, tmp_path, **changes)), device="cpu")


@pytest.mark.parametrize("name", ["tiny-gemma3-causal", "tiny-qwen3-both-sides"])
def test_the_publishers_rules_are_not_for_models_of_another_kind(tmp_path, name):
    """EmbeddingGemma is not causal, and Qwen3-Embedding is: neither says how such a model pools."""
    directory = copy_model(name, tmp_path)
    for file in ("modules.json", "1_Pooling", "2_Normalize", "config_sentence_transformers.json"):
        path = directory / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelLoadError, match="does not say how to pool"):
        EmbeddingService(str(directory), device="cpu")


def test_only_qwen3_has_a_card_that_says_how_a_reranker_is_asked(tmp_path):
    directory = copy_model("reranker-qwen2-logit-score", tmp_path)
    (directory / "modules.json").unlink()
    with pytest.raises(ModelLoadError, match=r"modules\.json is missing, and only it says how a reranker"):
        Reranker(str(directory), device="cpu")


@pytest.mark.parametrize("named", ["LlamaTokenizerFast", "BertTokenizer", None])
def test_some_architectures_take_one_tokenizer_class_whatever_the_files_name(named):
    path = GOLDENS / "tokenizer_config.json"
    assert find_class(path, named, "mistral") is None
    assert find_class(path, named, "ministral3") is None
    assert find_class(path, named, "qwen2") is find_class(path, "Qwen2Tokenizer", "qwen3") is not None


def test_windows_steps_and_directions_change_the_vectors(tmp_path):
    """The texts are long enough for each, so that the goldens would show one that is not computed."""
    for name, changes in {
        "tiny-mistral": {"sliding_window": 400},
        "tiny-qwen3-windows": {"use_sliding_window": False, "layer_types": ["full_attention"] * 3},
        "tiny-qwen2-both-sides": {"is_causal": True},
        "tiny-gemma3-causal": {"use_bidirectional_attention": True},
    }.items():
        with EmbeddingService(str(copy_model(name, tmp_path, **changes)), device="cpu") as one:
            vectors = one.embed_array([TEXTS[i] for i in WIDE])
        assert np.abs(vectors - golden(name)["none"][WIDE]).max() > 1e-3, name


def test_queries_grow_at_each_step(tmp_path):
    directory = copy_model("tiny-ministral3", tmp_path)
    rope = json.loads((directory / "config.json").read_text())["rope_parameters"]
    edit_json(directory / "config.json", rope_parameters={**rope, "llama_4_scaling_beta": 0.0})
    with EmbeddingService(str(directory), device="cpu") as one:
        vectors = one.embed_array([TEXTS[i] for i in WIDE])
    assert np.abs(vectors - golden("tiny-ministral3")["none"][WIDE]).max() > 1e-3


def test_qwens_default_window_counts_only_where_windows_are_used():
    config = json.loads((GOLDENS / "tiny-qwen2/config.json").read_text())
    del config["sliding_window"], config["layer_types"]
    without, used = (
        parse_config(ARCHITECTURES["qwen2"].config, {**config, "use_sliding_window": use, "max_window_layers": 1})
        for use in (False, True)
    )
    assert (without.window, set(without.types)) == (None, {"full_attention"})
    assert (used.window, used.types[1:]) == (4096, ["sliding_attention"] * 2)
