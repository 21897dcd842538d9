"""GTE as transformers 5 has it; its publisher's own files name it "new"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from akidb_mlx.checkpoint.architectures.architecture import ROBERTA_HEAD, Architecture, first_token_classifier
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerType, Size
from akidb_mlx.checkpoint.architectures.nomic_bert import RotaryBertConfig
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY
from akidb_mlx.checkpoint.known_keys import harmless, only


class GteConfig(RotaryBertConfig):
    """The keys of config.json that are read."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 160_000.0}
    attention_bias: ClassVar[bool] = True
    down_bias: ClassVar[bool] = True

    max_position_embeddings: Size = 8192
    type_vocab_size: int = Field(1, ge=0, lt=1 << 24)
    hidden_act: ActivationName = "gelu"

    @property
    def head_size(self) -> int:
        """Return the size of a head."""
        return self.hidden_size // self.heads


GTE = Architecture(
    encoder="nomic_bert:NomicBert",
    config=GteConfig,
    only=ONLY
    | ROTARY_ONLY
    | {
        **only("position_embedding_type", *(None, "rope"), reason="GTE's positions are rotary"),
        **only("layer_norm_type", *(None, "layer_norm"), reason="GTE's norms are layer norms"),
        **only("logn_attention_scale", *(None, False), reason="attention is not scaled by a text's length"),
    },
    harmless=HARMLESS
    | {
        **harmless("logn_attention_clip1", reason="is used with logn_attention_scale only, which is refused"),
        **harmless("pack_qkv", reason="the tensors' names say how they are stored"),
        **harmless("unpad_inputs use_memory_efficient_attention", reason="chooses an implementation"),
    },
    own_code=("configuration_hf_alibaba_nlp_gte.GteConfig", "modeling_hf_alibaba_nlp_gte.GteModel"),
    prefixes=("gte.", "new."),
    renames={
        "encoder.layer.": "layers.",
        ".attention.qkv_proj.": ".self_attn.qkv_proj.",
        ".attention.o_proj.": ".self_attn.o_proj.",
        ".attn_ln.": ".post_attention_layernorm.",
        ".mlp_ln.": ".post_mlp_layernorm.",
        "lm_head.norm.": "lm_head.layer_norm.",
    },
    unused=("pooler.",),
    classifier=first_token_classifier("pooler.dense", "Tanh", "classifier"),
    masked_head=replace(ROBERTA_HEAD, bias=None),
)
