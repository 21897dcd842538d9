"""Decoders, in both directions, with texts that reach beyond their windows and steps."""

import json
from pathlib import Path
from typing import Any

from sentence_transformers.models import Dense, Normalize, Pooling
from torch import nn
from transformers import (
    EuroBertConfig,
    Gemma3TextConfig,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.goldens.make_models import Recipe

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
# The tokenizers of tiny-bert, and of tiny-qwen3 where transformers takes Qwen2Tokenizer whatever the files name.
_BERT: dict[str, Any] = {**_SIZES, "vocab_size": 615}
_QWEN: dict[str, Any] = {**_SIZES, "vocab_size": 893, "hidden_size": 24, "num_attention_heads": 3}
_NARROW: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
_WINDOW = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 48,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.2,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_QUERY = {"query": "Instruct: find the passages that answer the question\nQuery: "}


def _both_sides(directory: Path) -> None:
    """Let transformers attend to both sides, by a key that its configurations have no field for."""
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"is_causal": False}, indent=2) + "\n", encoding="utf-8")


def _mean_and_linear(size: int) -> list[Any]:
    """Return voyage-4-nano's linear layer, after the mean: it has no bias, so that it is the same before and after."""
    linear = Dense(size, 40, bias=False, activation_function=nn.Identity())
    return [Pooling(size, "mean"), linear, Normalize()]


MODELS = {
    "tiny-qwen2": Recipe(
        Qwen2Config(**(_QWEN | {"num_key_value_heads": 1})),
        "lasttoken",
        donor="tiny-qwen3",
        max_seq_length=320,
        prompts=_QUERY,
        scale=0.2,
    ),
    "tiny-qwen2-both-sides": Recipe(
        Qwen2Config(**(_QWEN | _WINDOW | {"num_key_value_heads": 3, "hidden_act": "gelu", "rope_theta": 1e6})),
        "mean",
        donor="tiny-qwen3",
        max_seq_length=320,
        change=_both_sides,
        scale=0.2,
    ),
    "tiny-qwen3-windows": Recipe(
        Qwen3Config(**(_QWEN | _WINDOW | {"num_key_value_heads": 1, "head_dim": 12, "attention_bias": True})),
        "lasttoken",
        donor="tiny-qwen3",
        max_seq_length=320,
        prompts=_QUERY,
        scale=0.2,
    ),
    "tiny-qwen3-both-sides": Recipe(
        Qwen3Config(**(_BERT | _WINDOW | {"head_dim": 16})),
        "mean",
        max_seq_length=320,
        change=_both_sides,
        scale=0.2,
    ),
    "tiny-qwen3-linear": Recipe(
        Qwen3Config(**(_BERT | _NARROW | {"num_key_value_heads": 1, "head_dim": 12})),
        "mean",
        max_seq_length=320,
        prompts=_QUERY,
        modules=_mean_and_linear,
        change=_both_sides,
        scale=0.2,
    ),
    "tiny-llama": Recipe(
        LlamaConfig(**(_BERT | {"rope_parameters": _LLAMA3})), "lasttoken", max_seq_length=320, scale=0.2
    ),
    "tiny-llama-biases": Recipe(
        LlamaConfig(
            **(_BERT | _NARROW | {"num_key_value_heads": None, "head_dim": 10}),
            attention_bias=True,
            mlp_bias=True,
            hidden_act="gelu_pytorch_tanh",
        ),
        "mean",
        max_seq_length=320,
        prompts=_QUERY,
        change=_both_sides,
        scale=0.2,
    ),
    "tiny-mistral": Recipe(
        MistralConfig(**(_BERT | {"sliding_window": 40})), "lasttoken", max_seq_length=320, prompts=_QUERY, scale=0.2
    ),
    "tiny-mistral-full": Recipe(
        MistralConfig(**(_BERT | _NARROW | {"num_key_value_heads": 1, "head_dim": 6, "sliding_window": None})),
        "mean",
        max_seq_length=320,
        scale=0.2,
    ),
    "tiny-ministral3": Recipe(
        Ministral3Config(**(_BERT | {"head_dim": 16, "rope_parameters": _YARN})),
        "lasttoken",
        max_seq_length=320,
        prompts=_QUERY,
        scale=0.2,
    ),
    "tiny-ministral3-both-sides": Recipe(
        Ministral3Config(
            **(_BERT | _NARROW | {"num_key_value_heads": 3, "head_dim": 8}),
            sliding_window=40,
            rope_parameters=_YARN | {"factor": 16.0, "llama_4_scaling_beta": 0.5},
        ),
        "mean",
        max_seq_length=320,
        change=_both_sides,
        scale=0.2,
    ),
    "tiny-eurobert": Recipe(EuroBertConfig(**_BERT), "mean", max_seq_length=320, prompts=_QUERY, scale=0.2),
    "tiny-eurobert-last": Recipe(
        EuroBertConfig(
            **(_BERT | _NARROW | {"num_key_value_heads": 1}), attention_bias=True, mlp_bias=True, rope_theta=25e4
        ),
        "lasttoken",
        max_seq_length=320,
        scale=0.2,
    ),
    "tiny-gemma3-causal": Recipe(
        Gemma3TextConfig(
            **(_BERT | {"head_dim": 16}),
            sliding_window=40,
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "lasttoken",
        max_seq_length=320,
        prompts=_QUERY,
        scale=0.2,
    ),
    "tiny-gemma3-causal-mean": Recipe(
        Gemma3TextConfig(
            **(_BERT | _NARROW | {"num_key_value_heads": 3, "head_dim": 12}),
            sliding_window=30,
            query_pre_attn_scalar=20,
            layer_types=["sliding_attention", "sliding_attention"],
        ),
        "mean",
        max_seq_length=320,
        scale=0.2,
    ),
}
