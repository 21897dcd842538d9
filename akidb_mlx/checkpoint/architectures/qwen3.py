"""Qwen3. The prompts are those of Qwen/Qwen3-Embedding-0.6B's model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerType, Size
from akidb_mlx.checkpoint.architectures.decoder import DecoderConfig
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY
from akidb_mlx.checkpoint.known_keys import Only, harmless


class Qwen3Config(DecoderConfig):
    """The keys of config.json that are read."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e4}

    max_position_embeddings: Size = 32_768
    hidden_act: ActivationName = "silu"
    use_sliding_window: Literal[False] | None = False


QWEN3 = Architecture(
    encoder="qwen3:Qwen3",
    config=Qwen3Config,
    only=ONLY
    | ROTARY_ONLY
    | {
        "is_causal": Only((None, True), "Qwen3 is read as a causal model, in which no token sees those after it"),
        "use_bidirectional_attention": Only((None, False), "Qwen3 is read as a causal model"),
    },
    harmless=HARMLESS
    | harmless("sliding_window max_window_layers", reason="is used with use_sliding_window only, which is refused"),
    pooling="last",
    prompts={
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        "document": "",
    },
    final_token="<|endoftext|>",
    matryoshka=True,
    original="Qwen/Qwen3-Embedding-0.6B",
    language_head="lm_head",
)
