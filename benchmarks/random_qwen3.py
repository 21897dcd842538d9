"""Make a model of Qwen3-Embedding-0.6B's shape with random weights, to measure its speed without its download.

It has 2.4 GB of float32 weights, and is written once to ~/.cache/akidb-bench. Its tokenizer is that of
tests/goldens/tiny-qwen3 with a larger vocabulary, which is trained on the benchmark's own texts. So they are about as
many tokens long as with Qwen3's tokenizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from benchmarks import random_models
from tests.support import GOLDENS, edit_json, sts_pairs

_HIDDEN, _INTERMEDIATE, _LAYERS, _VOCABULARY = 1024, 3072, 28, 151669
_HEAD_SIZE, _QUERY_HEADS, _KEY_HEADS = 128, 16, 8
_MAX_TOKENS = 32768
_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 0,
    "head_dim": _HEAD_SIZE,
    "hidden_act": "silu",
    "hidden_size": _HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": _INTERMEDIATE,
    "max_position_embeddings": _MAX_TOKENS,
    "max_window_layers": _LAYERS,
    "model_type": "qwen3",
    "num_attention_heads": _QUERY_HEADS,
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": _KEY_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": _VOCABULARY,
}


def ensure() -> Path:
    """Return the model's directory, and make it first if it is absent."""
    return random_models.ensure("qwen3-0.6b-random", _write)


def _write(directory: Path) -> None:
    shutil.copytree(GOLDENS / "tiny-qwen3", directory, ignore=shutil.ignore_patterns("*.safetensors"))
    (directory / "config.json").write_text(json.dumps(_CONFIG, indent=2))
    edit_json(directory / "sentence_bert_config.json", max_seq_length=_MAX_TOKENS)
    edit_json(directory / "1_Pooling" / "config.json", word_embedding_dimension=_HIDDEN)
    _train_tokenizer(directory)
    save_file(_weights(), directory / "model.safetensors", metadata={"format": "pt"})


def _train_tokenizer(directory: Path) -> None:
    file = str(directory / "tokenizer.json")
    prompts = json.loads((directory / "config_sentence_transformers.json").read_text())["prompts"]
    first, second, _ = sts_pairs()
    tokenizer = Tokenizer.from_file(file)
    trainer = BpeTrainer(
        vocab_size=16384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],  # in the order of their ids
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*first, *second, *prompts.values(), *prompts.values()], trainer)
    tokenizer.save(file)


def _weights() -> dict[str, NDArray[np.float32]]:
    """Return random weights by their names."""
    random = random_models.RandomWeights()
    queries, keys = _QUERY_HEADS * _HEAD_SIZE, _KEY_HEADS * _HEAD_SIZE
    matrices = {
        "self_attn.q_proj": (queries, _HIDDEN),
        "self_attn.k_proj": (keys, _HIDDEN),
        "self_attn.v_proj": (keys, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, queries),
        "mlp.gate_proj": (_INTERMEDIATE, _HIDDEN),
        "mlp.up_proj": (_INTERMEDIATE, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INTERMEDIATE),
    }
    norms = {
        "input_layernorm": _HIDDEN,
        "post_attention_layernorm": _HIDDEN,
        "self_attn.q_norm": _HEAD_SIZE,
        "self_attn.k_norm": _HEAD_SIZE,
    }

    weights = {"embed_tokens.weight": random.matrix(_VOCABULARY, _HIDDEN), "norm.weight": random.norm(_HIDDEN)}
    for layer in range(_LAYERS):
        prefix = f"layers.{layer}"
        weights |= {f"{prefix}.{name}.weight": random.matrix(*shape) for name, shape in matrices.items()}
        weights |= {f"{prefix}.{name}.weight": random.norm(size) for name, size in norms.items()}
    return weights
