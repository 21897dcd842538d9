"""Make rerankers with random weights: cross-encoders of the shapes of ms-marco-MiniLM, and a causal model."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

from safetensors.numpy import save_file

from benchmarks import random_bert, random_models
from tests.support import GOLDENS, edit_json

_CAUSAL_HIDDEN, _CAUSAL_INTERMEDIATE, _CAUSAL_LAYERS, _HEAD_SIZE, _QUERY_HEADS, _KEY_HEADS = 512, 1536, 8, 64, 8, 4


def ensure_cross_encoder(layers: int) -> Path:
    """Return the directory of a BERT of 384 values and so many layers, and make it first if it is absent."""
    return random_models.ensure(f"cross-encoder-l{layers}-random", partial(_write_cross_encoder, layers=layers))


def ensure_causal() -> Path:
    """Return the directory of a Qwen3 of 512 values and 8 layers that says yes or no, and make it first if absent."""
    return random_models.ensure("causal-reranker-random", _write_causal)


def _write_cross_encoder(directory: Path, layers: int) -> None:
    directory.mkdir()
    random_bert.write_files(
        directory,
        layers,
        architectures=["BertForSequenceClassification"],
        id2label={"0": "LABEL_0"},
        sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
    )
    weights = random_models.RandomWeights()
    tensors = {
        **random_bert.make_encoder(weights, layers),
        **random_bert.make_linear(weights, "bert.pooler.dense", random_bert.HIDDEN),
        **random_bert.make_linear(weights, "classifier", 1),
    }
    # So that scores of different pairs differ by far more than rounding does.
    tensors["bert.pooler.dense.weight"] *= 10
    tensors["classifier.weight"] *= 10
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _write_causal(directory: Path) -> None:
    shutil.copytree(GOLDENS / "reranker-qwen3", directory, ignore=shutil.ignore_patterns("*.safetensors"))
    edit_json(
        directory / "config.json",
        head_dim=_HEAD_SIZE,
        hidden_size=_CAUSAL_HIDDEN,
        intermediate_size=_CAUSAL_INTERMEDIATE,
        layer_types=None,
        max_position_embeddings=4096,
        num_attention_heads=_QUERY_HEADS,
        num_hidden_layers=_CAUSAL_LAYERS,
        num_key_value_heads=_KEY_HEADS,
    )
    edit_json(directory / "tokenizer_config.json", model_max_length=4096)
    vocabulary = json.loads((directory / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    weights = random_models.RandomWeights()
    tensors = {
        "model.embed_tokens.weight": weights.matrix(vocabulary, _CAUSAL_HIDDEN),
        "model.norm.weight": weights.norm(_CAUSAL_HIDDEN),
    }
    for layer in range(_CAUSAL_LAYERS):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": weights.norm(_CAUSAL_HIDDEN),
            f"{name}.post_attention_layernorm.weight": weights.norm(_CAUSAL_HIDDEN),
            f"{name}.self_attn.q_norm.weight": weights.norm(_HEAD_SIZE),
            f"{name}.self_attn.k_norm.weight": weights.norm(_HEAD_SIZE),
            f"{name}.self_attn.q_proj.weight": weights.matrix(_QUERY_HEADS * _HEAD_SIZE, _CAUSAL_HIDDEN),
            f"{name}.self_attn.k_proj.weight": weights.matrix(_KEY_HEADS * _HEAD_SIZE, _CAUSAL_HIDDEN),
            f"{name}.self_attn.v_proj.weight": weights.matrix(_KEY_HEADS * _HEAD_SIZE, _CAUSAL_HIDDEN),
            f"{name}.self_attn.o_proj.weight": weights.matrix(_CAUSAL_HIDDEN, _QUERY_HEADS * _HEAD_SIZE),
            f"{name}.mlp.gate_proj.weight": weights.matrix(_CAUSAL_INTERMEDIATE, _CAUSAL_HIDDEN),
            f"{name}.mlp.up_proj.weight": weights.matrix(_CAUSAL_INTERMEDIATE, _CAUSAL_HIDDEN),
            f"{name}.mlp.down_proj.weight": weights.matrix(_CAUSAL_HIDDEN, _CAUSAL_INTERMEDIATE),
        }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
