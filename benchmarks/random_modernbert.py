"""Make a model of ModernBERT-base's shape with random weights (450 MB), and the tokenizer of all-MiniLM-L6-v2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.numpy import save_file

from akidb_mlx import EmbeddingService
from benchmarks import random_models
from tests.support import GOLDENS, edit_json

_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS, _VOCABULARY, _MAX_TOKENS = 768, 1152, 22, 12, 30522, 8192
_CONFIG = {
    "architectures": ["ModernBertModel"],
    "attention_bias": False,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": _HIDDEN,
    "intermediate_size": _INTERMEDIATE,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": _MAX_TOKENS,
    "mlp_bias": False,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-5,
    "num_attention_heads": _HEADS,
    "num_hidden_layers": _LAYERS,
    "pad_token_id": 0,
    "torch_dtype": "float32",
    "vocab_size": _VOCABULARY,
}


def ensure() -> Path:
    """Return the model's directory, and make it first if it is absent."""
    return random_models.ensure("modernbert-base-random", _write)


def _write(directory: Path) -> None:
    with EmbeddingService("minilm-l6-v2", device="cpu") as service:
        donor = Path(service.get_model_info()["path"])
    shutil.copytree(GOLDENS / "tiny-bert", directory, ignore=shutil.ignore_patterns("*.safetensors"))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(donor / file, directory)
    (directory / "config.json").write_text(json.dumps(_CONFIG, indent=2))
    edit_json(directory / "sentence_bert_config.json", max_seq_length=_MAX_TOKENS)
    edit_json(directory / "1_Pooling" / "config.json", word_embedding_dimension=_HIDDEN)
    weights = random_models.RandomWeights()
    tensors = {
        "embeddings.tok_embeddings.weight": weights.matrix(_VOCABULARY, _HIDDEN),
        "embeddings.norm.weight": weights.norm(_HIDDEN),
        "final_norm.weight": weights.norm(_HIDDEN),
    }
    for layer in range(_LAYERS):
        name = f"layers.{layer}"
        if layer:
            tensors[f"{name}.attn_norm.weight"] = weights.norm(_HIDDEN)
        tensors |= {
            f"{name}.attn.Wqkv.weight": weights.matrix(3 * _HIDDEN, _HIDDEN),
            f"{name}.attn.Wo.weight": weights.matrix(_HIDDEN, _HIDDEN),
            f"{name}.mlp_norm.weight": weights.norm(_HIDDEN),
            f"{name}.mlp.Wi.weight": weights.matrix(2 * _INTERMEDIATE, _HIDDEN),
            f"{name}.mlp.Wo.weight": weights.matrix(_HIDDEN, _INTERMEDIATE),
        }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
