"""The keys of config.json that the decoders share, and the rules that follow from them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerCount, LayerType, Size
from akidb_mlx.checkpoint.architectures.rotary import RotaryConfig
from akidb_mlx.errors import ModelLoadError


class DecoderConfig(RotaryConfig):
    """The keys of config.json that all decoders have.

    Attributes:
        head_norms: whether the queries and keys of each head are normalised.
    """

    head_norms: ClassVar[bool] = False

    layers: LayerCount = Field(validation_alias="num_hidden_layers")
    heads: Size = Field(validation_alias="num_attention_heads")
    key_heads: Size = Field(validation_alias="num_key_value_heads")
    head_dim: Size
    intermediate_size: Size
    rms_norm_eps: PositiveFloat
    hidden_act: ActivationName = "silu"
    layer_types: list[LayerType] | None = None
    sliding_window: Size | None = None
    # transformers reads it in every decoder, though no configuration class has it.
    is_causal: bool = True

    @property
    def head_size(self) -> int:
        """Return the size of a head."""
        return self.head_dim

    @property
    def types(self) -> list[LayerType]:
        """Return the type of each layer."""
        return self.layer_types or self.default_types

    @property
    def default_types(self) -> list[LayerType]:
        """Return the type of each layer where config.json does not list them."""
        return ["full_attention"] * self.layers

    @property
    def causal(self) -> bool:
        """Return whether no token sees those after it."""
        return self.is_causal

    @property
    def window(self) -> int | None:
        """Return the sliding window; None for none."""
        return self.sliding_window

    @property
    def reach(self) -> int | None:
        """Return the distance from which on a token is out of sight in a layer of sliding attention; None for none.

        Where tokens see both sides, transformers includes the token at the distance of the window.
        """
        return self.window if self.window is None or self.causal else self.window + 1

    @property
    def head(self) -> str | None:
        """Return the name of the linear layer after the last norm; None for none."""
        return None

    @property
    def query_growth(self) -> tuple[float, int] | None:
        """Return how queries grow with their position, as a factor and the positions of a step; None for not at all."""
        return None

    @property
    def attention_biases(self) -> tuple[bool, bool]:
        """Return whether the projections to queries, keys and values have biases, and the one of the output."""
        return False, False

    @property
    def mlp_biases(self) -> bool:
        """Return whether the projections of the MLP have biases."""
        return False

    @model_validator(mode="after")
    def _check_layer_types(self) -> Self:
        types = self.types
        if len(types) != self.layers:
            raise ModelLoadError(f"config.json: {len(types)} layer_types for {self.layers} layers")
        if "sliding_attention" in types and self.window is None:
            raise ModelLoadError("config.json: layer_types of 'sliding_attention' are not supported without a window")
        if self.heads % self.key_heads:
            raise ModelLoadError(f"config.json: {self.key_heads} key heads do not divide {self.heads} heads")
        return self


class BiasedAttention(DecoderConfig):
    """A decoder whose attention has biases where config.json says so."""

    attention_bias: bool = False

    @property
    def attention_biases(self) -> tuple[bool, bool]:
        """Return whether the projections of attention have biases; see `DecoderConfig`."""
        return self.attention_bias, self.attention_bias


class DerivedHeads(DecoderConfig):
    """A decoder whose heads share the width of a token's vector where config.json does not give their size."""

    @model_validator(mode="before")
    @classmethod
    def _derive_head_size(cls, config: dict[str, Any]) -> dict[str, Any]:
        size, heads = config.get("hidden_size"), config.get("num_attention_heads")
        if config.get("head_dim") is not None or type(size) is not int or type(heads) is not int or heads < 1:
            return config
        if size % heads:
            raise ModelLoadError(f"config.json: {heads} heads do not divide a hidden_size of {size}")
        return config | {"head_dim": size // heads}
