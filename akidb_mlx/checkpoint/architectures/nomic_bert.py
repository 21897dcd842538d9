"""NomicBERT, in transformers' keys and in its publisher's, which are GPT-2's with more of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, PositiveFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.architecture import Architecture, first_token_classifier
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerCount, LayerType, Size
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY, RotaryConfig
from akidb_mlx.checkpoint.known_keys import harmless, only
from akidb_mlx.errors import ModelLoadError

# The publisher's defaults for them are not transformers'.
_STATED = ("activation_function", "layer_norm_epsilon", "rotary_emb_base", "rotary_emb_fraction")


class RotaryBertConfig(RotaryConfig):
    """The keys of config.json that NomicBERT and GTE share.

    Attributes:
        attention_bias: whether attention's linear layers have a bias.
        down_bias: whether the MLP's last linear layer has one.
    """

    attention_bias: ClassVar[bool]
    down_bias: ClassVar[bool]

    layers: LayerCount = Field(validation_alias=AliasChoices("num_hidden_layers", "n_layer"))
    heads: Size = Field(validation_alias=AliasChoices("num_attention_heads", "n_head"))
    intermediate_size: Size = Field(validation_alias=AliasChoices("intermediate_size", "n_inner"))
    layer_norm_eps: PositiveFloat = Field(1e-12, validation_alias=AliasChoices("layer_norm_eps", "layer_norm_epsilon"))
    type_vocab_size: int
    hidden_act: ActivationName


class NomicBertConfig(RotaryBertConfig):
    """The keys of config.json that are read."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e3}
    attention_bias: ClassVar[bool] = False
    down_bias: ClassVar[bool] = False

    hidden_size: Size = Field(validation_alias=AliasChoices("hidden_size", "n_embd"))
    max_position_embeddings: Size = 2048
    type_vocab_size: Size = 2
    hidden_act: ActivationName = "silu"
    activation_function: Literal["swiglu"] | None = None
    head_dim: Size | None = None
    rotary_emb_base: Any = None

    @property
    def head_size(self) -> int:
        """Return the size of a head."""
        return self.head_dim or self.hidden_size // self.heads

    @model_validator(mode="before")
    @classmethod
    def _check_dialect(cls, config: Any) -> Any:
        """Refuse the publisher's keys without those whose defaults differ, and take its rotary base."""
        if "n_embd" in config and "hidden_size" not in config:
            for key in _STATED:
                if config.get(key) is None:
                    raise ModelLoadError(f"config.json lacks {key}, which has no default beside n_embd")
        base = config.get("rotary_emb_base")
        return config if base is None or config.get("rope_theta") is not None else {**config, "rope_theta": base}

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.activation_function is not None and self.hidden_act != "silu":
            raise ModelLoadError(f"config.json: activation_function is swiglu, and hidden_act {self.hidden_act!r:.80}")
        theta = self.rotations["full_attention"].theta
        if self.rotary_emb_base is not None and self.rotary_emb_base != theta:
            raise ModelLoadError(
                f"config.json: rotary_emb_base is {self.rotary_emb_base!r:.80}, and rope_theta {theta}"
            )
        return self


# Parts of tensors' names as their publisher stores them, and transformers 5 after it.
_NOMIC_RENAMES = {
    "encoder.layers.": "layers.",
    "emb_ln.": "embeddings.LayerNorm.",
    ".attn.Wqkv.": ".self_attn.qkv_proj.",
    ".attn.out_proj.": ".self_attn.o_proj.",
    ".fc11.": ".up_proj.",
    ".fc12.": ".gate_proj.",
    ".fc2.": ".down_proj.",
    ".norm1.": ".post_attention_layernorm.",
    ".norm2.": ".post_mlp_layernorm.",
}

NOMIC_BERT = Architecture(
    encoder="nomic_bert:NomicBert",
    config=NomicBertConfig,
    only=ONLY
    | ROTARY_ONLY
    | {
        **only(
            "causal prenorm parallel_block parallel_block_tied_norm use_rms_norm qkv_proj_bias mlp_fc1_bias "
            "mlp_fc2_bias rotary_emb_interleaved rotary_head_dim scale_attn_by_inverse_layer_idx "
            "reorder_and_upcast_attn",
            *(None, False),
            reason="NomicBERT is computed as transformers 5 does: both sides, norms last, no biases",
        ),
        **only("rotary_emb_fraction", *(None, 1.0), reason="a part that is not rotated is not supported"),
        **only(
            "rotary_emb_scale_base rotary_scaling_factor num_heads_kv",
            None,
            reason="neither scaled positions nor fewer key heads are computed",
        ),
        **only("scale_attn_weights", *(None, True), reason="attention scores are scaled"),
        **only("num_experts num_shared_experts", *(None, 0), reason="a mixture of experts (MoE) is not computed"),
        **only("moe_every_n_layers", *(None, 0, -1), reason="a mixture of experts (MoE) is not computed"),
    },
    harmless=HARMLESS
    | {
        **harmless("position_embedding_type", reason="NomicBERT's positions are rotary"),
        **harmless("n_positions n_ctx", reason="max_position_embeddings bounds a text's tokens"),
        **harmless("max_trained_positions", reason="is used with rotary_scaling_factor only, which is refused"),
        **harmless("pad_vocab_size_multiple", reason="the stored table is compared with vocab_size"),
        **harmless(
            "dense_seq_output fused_bias_fc fused_dropout_add_ln use_flash_attn use_xentropy",
            reason="chooses an implementation",
        ),
        **harmless(
            "add_pooling_layer summary_activation summary_first_dropout summary_proj_to_labels summary_type "
            "summary_use_proj",
            reason="is of a head or of a pooler, whose output is not used",
        ),
        **harmless(
            "ffn_div expert_choice_router moe_impl moe_normalize_expert_weights moe_resid_pdrop moe_top_k "
            "router_aux_loss_coef",
            reason="is of experts, which are refused",
        ),
    },
    own_code=("configuration_hf_nomic_bert.NomicBertConfig", "modeling_hf_nomic_bert.NomicBertModel"),
    prefixes=("nomic_bert.",),
    renames=_NOMIC_RENAMES,
    unused=("pooler.",),
    classifier=first_token_classifier("pooler.dense", "Tanh", "classifier"),
)
