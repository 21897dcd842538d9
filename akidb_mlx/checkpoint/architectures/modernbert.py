"""ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.architecture import Architecture, MaskedHead
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerCount, LayerType, Size
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY, RotaryConfig
from akidb_mlx.checkpoint.head import Dense, Head, LayerNorm, Pooling
from akidb_mlx.checkpoint.known_keys import cut, harmless, only
from akidb_mlx.errors import ModelLoadError


class ModernBertConfig(RotaryConfig):
    """The keys of config.json that are read."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 160_000.0, "sliding_attention": 1e4}
    older_thetas: ClassVar[Mapping[LayerType, str]] = {
        "full_attention": "global_rope_theta",
        "sliding_attention": "local_rope_theta",
    }

    global_rope_theta: Any = None
    local_rope_theta: Any = None
    layers: LayerCount = Field(validation_alias="num_hidden_layers")
    heads: Size = Field(validation_alias="num_attention_heads")
    intermediate_size: Size
    max_position_embeddings: Size = 8192
    hidden_activation: ActivationName = "gelu"
    norm_eps: PositiveFloat = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: Size = 128
    layer_types: list[LayerType] | None = None
    global_attn_every_n_layers: Size = 3
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_activation: ActivationName = "gelu"
    classifier_bias: bool = False

    @property
    def head_size(self) -> int:
        """Return the size of a head."""
        return self.hidden_size // self.heads

    @property
    def types(self) -> list[LayerType]:
        """Return the type of each layer: newer files list them, older ones state the period of full attention."""
        if self.layer_types is not None:
            return self.layer_types
        period = self.global_attn_every_n_layers
        return ["sliding_attention" if i % period else "full_attention" for i in range(self.layers)]

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if len(self.types) != self.layers:
            raise ModelLoadError(f"config.json: {len(self.types)} layer_types for {self.layers} layers")
        return self


# The activations of classifiers, and the classes of torch.nn that compute them.
_ACTIVATIONS = {"gelu": "GELU", "relu": "ReLU", "silu": "SiLU", "tanh": "Tanh"}


def _describe_classifier(config: ModernBertConfig, labels: int) -> Head:
    """Return the pooling and the layers that make scores of token vectors."""
    name, size = config.classifier_activation, config.hidden_size
    if name not in _ACTIVATIONS:
        raise ModelLoadError(
            f"config.json: classifier_activation {cut(name)!r} is not supported ({', '.join(_ACTIVATIONS)})"
        )
    dense = Dense("head.dense", size, _ACTIVATIONS[name], config.classifier_bias)
    norm = LayerNorm("head.norm", config.norm_eps, config.norm_bias)
    return Head(Pooling((config.classifier_pooling,)), (dense, norm, Dense("classifier", labels)))


MODERNBERT = Architecture(
    encoder="modernbert:ModernBert",
    config=ModernBertConfig,
    only=ONLY
    | ROTARY_ONLY
    | {
        **only("rope_theta", None, reason="ModernBERT's are global_rope_theta and local_rope_theta"),
        **only("rope_scaling", *(None, {}), reason="ModernBERT's positions are described by rope_parameters"),
        **only("hidden_act", None, reason="ModernBERT names its activation hidden_activation"),
    },
    harmless=HARMLESS
    | {
        **harmless("layer_norm_eps", reason="ModernBERT's epsilon is norm_eps"),
        **harmless("position_embedding_type", reason="ModernBERT's positions are rotary"),
        **harmless("initializer_cutoff_factor", reason="is used in training only"),
        **harmless(
            "decoder_bias sparse_prediction sparse_pred_ignore_index",
            reason="is of a head, and a model with a head is refused",
        ),
        **harmless(
            "deterministic_flash_attn reference_compile repad_logits_with_grad", reason="chooses an implementation"
        ),
    },
    classifier=_describe_classifier,
    masked_head=MaskedHead(
        "head.dense",
        "head.norm",
        "decoder",
        table="embeddings.tok_embeddings",
        activation="classifier_activation",
        eps="norm_eps",
        biases={
            "head.dense.bias": ("classifier_bias", False),
            "head.norm.bias": ("norm_bias", False),
            "decoder.bias": ("decoder_bias", True),
        },
    ),
)
