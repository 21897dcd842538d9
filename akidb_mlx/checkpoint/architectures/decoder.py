"""The keys of config.json that the decoders share: Qwen3 and Gemma 3."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.config import LayerCount, LayerType, Size
from akidb_mlx.checkpoint.architectures.rotary import RotaryConfig
from akidb_mlx.errors import ModelLoadError


class DecoderConfig(RotaryConfig):
    """The keys of config.json that both architectures have."""

    layers: LayerCount = Field(validation_alias="num_hidden_layers")
    heads: Size = Field(validation_alias="num_attention_heads")
    key_heads: Size = Field(validation_alias="num_key_value_heads")
    head_dim: Size
    intermediate_size: Size
    rms_norm_eps: PositiveFloat
    attention_bias: bool = False
    layer_types: list[LayerType] | None = None

    @property
    def head_size(self) -> int:
        """Return the size of a head."""
        return self.head_dim

    @model_validator(mode="after")
    def _check_layer_types(self) -> Self:
        types = self.layer_types
        if types is None:
            return self
        if len(types) != self.layers:
            raise ModelLoadError(f"config.json: {len(types)} layer_types for {self.layers} layers")
        if unknown := set(types) - self.default_thetas.keys():
            raise ModelLoadError(f"config.json: layer_types of {unknown.pop()!r} are not supported")
        return self
