"""Llama, and its near kin: Mistral, Ministral 3, and EuroBERT, in which every token sees both sides."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import LayerType, Size
from akidb_mlx.checkpoint.architectures.decoder import BiasedAttention, DecoderConfig, DerivedHeads
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY
from akidb_mlx.checkpoint.known_keys import harmless
from akidb_mlx.errors import ModelLoadError

_MAX_GROWTH = 1000.0


class LlamaConfig(BiasedAttention, DerivedHeads):
    """The keys of config.json that are read."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e4}

    max_position_embeddings: Size = 2048
    mlp_bias: bool = False
    layer_types: None = None
    sliding_window: None = None

    @property
    def mlp_biases(self) -> bool:
        """Return whether the projections of the MLP have biases."""
        return self.mlp_bias

    @model_validator(mode="before")
    @classmethod
    def _derive_key_heads(cls, config: dict[str, Any]) -> dict[str, Any]:
        if config.get("num_key_value_heads") is not None:
            return config
        return config | {"num_key_value_heads": config.get("num_attention_heads")}


class EuroBertConfig(LlamaConfig):
    """The keys of config.json that are read."""

    max_position_embeddings: Size = 8192
    is_causal: Literal[False] = False


class MistralConfig(DerivedHeads):
    """The keys of config.json that are read; a window is that of all layers."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e4}

    max_position_embeddings: Size = 131_072
    sliding_window: Size | None = 4096
    layer_types: None = None

    @property
    def default_types(self) -> list[LayerType]:
        """Return the type of each layer."""
        return ["full_attention" if self.window is None else "sliding_attention"] * self.layers


class Ministral3Config(DecoderConfig):
    """The keys of config.json that are read; queries grow with their position, as in Llama 4."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e4}
    other_rope_keys: ClassVar[frozenset[str]] = frozenset({"llama_4_scaling_beta"})
    default_rope: ClassVar[Mapping[str, Any]] = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 16_384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    }

    max_position_embeddings: Size = 262_144
    sliding_window: Size | None = None
    layer_types: None = None

    @property
    def default_types(self) -> list[LayerType]:
        """Return the type of each layer."""
        return ["full_attention" if self.window is None else "sliding_attention"] * self.layers

    @cached_property
    def query_growth(self) -> tuple[float, int]:
        """Return how queries grow with their position; see `DecoderConfig`."""
        where, rope = self.ropes["full_attention"]
        growth, step = rope.get("llama_4_scaling_beta"), rope.get("original_max_position_embeddings")
        if step is None and rope.get("rope_type", rope.get("type")) in ("yarn", "llama3"):
            step = self.max_position_embeddings
        if not isinstance(growth, (int, float)) or not 0 <= growth < _MAX_GROWTH or type(step) is not int or step < 1:
            raise ModelLoadError(
                f"config.json: {where}llama_4_scaling_beta = {reprlib.repr(growth)} with "
                f"original_max_position_embeddings = {reprlib.repr(step)} is not supported: both must be numbers"
            )
        return float(growth), step

    @model_validator(mode="after")
    def _check_growth(self) -> Self:
        _ = self.query_growth
        return self


_LLAMA_HARMLESS = HARMLESS | harmless("mask_token_id classifier_pooling", reason="is of a head or of training")

LLAMA = Architecture("decoder:Decoder", LlamaConfig, ONLY | ROTARY_ONLY, HARMLESS)
EUROBERT = Architecture("decoder:Decoder", EuroBertConfig, ONLY | ROTARY_ONLY, _LLAMA_HARMLESS)
MISTRAL = Architecture("decoder:Decoder", MistralConfig, ONLY | ROTARY_ONLY, HARMLESS)
MINISTRAL3 = Architecture("decoder:Decoder", Ministral3Config, ONLY | ROTARY_ONLY, HARMLESS)
