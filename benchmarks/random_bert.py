"""Random weights of a BERT in MiniLM's shape, with the tokenizer of all-MiniLM-L6-v2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx import EmbeddingService
from benchmarks.random_models import RandomWeights
from tests.support import edit_json

HIDDEN, VOCABULARY = 384, 30522
_INTERMEDIATE, _HEADS, _MAX_TOKENS = 1536, 12, 512


def write_files(directory: Path, layers: int, **keys: Any) -> None:
    """Write config.json, with further keys, and the tokenizer's files."""
    with EmbeddingService("minilm-l6-v2", device="cpu") as service:
        donor = Path(service.get_model_info()["path"])
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(donor / file, directory)
    edit_json(directory / "tokenizer_config.json", model_max_length=_MAX_TOKENS)
    config = {
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": _MAX_TOKENS,
        "model_type": "bert",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": VOCABULARY,
    }
    (directory / "config.json").write_text(json.dumps(config | keys, indent=2), encoding="utf-8")


def make_encoder(weights: RandomWeights, layers: int) -> dict[str, NDArray[np.float32]]:
    """Return the encoder's tensors, as a model with a head stores them."""
    linear: list[tuple[str, int, int]] = []
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(layers):
        name = f"bert.encoder.layer.{layer}"
        linear += [(f"{name}.attention.self.{part}", HIDDEN, HIDDEN) for part in ("query", "key", "value")]
        linear += [
            (f"{name}.attention.output.dense", HIDDEN, HIDDEN),
            (f"{name}.intermediate.dense", _INTERMEDIATE, HIDDEN),
            (f"{name}.output.dense", HIDDEN, _INTERMEDIATE),
        ]
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    tensors = {
        f"bert.embeddings.{table}_embeddings.weight": weights.matrix(rows, HIDDEN)
        for table, rows in (("word", VOCABULARY), ("position", _MAX_TOKENS), ("token_type", 2))
    }
    for name, outputs, inputs in linear:
        tensors |= make_linear(weights, name, outputs, inputs)
    for name in norms:
        tensors |= make_norm(weights, name)
    return tensors


def make_linear(weights: RandomWeights, name: str, outputs: int, inputs: int = HIDDEN) -> dict[str, Any]:
    """Return the tensors of a linear layer."""
    return {f"{name}.weight": weights.matrix(outputs, inputs), f"{name}.bias": weights.matrix(1, outputs)[0]}


def make_norm(weights: RandomWeights, name: str) -> dict[str, Any]:
    """Return the tensors of a LayerNorm."""
    return {f"{name}.weight": weights.norm(HIDDEN), f"{name}.bias": weights.matrix(1, HIDDEN)[0]}
