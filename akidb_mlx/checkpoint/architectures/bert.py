"""BERT, and RoBERTa and DistilBERT, whose files name the same layers otherwise."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, PositiveFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.architecture import (
    ROBERTA_HEAD,
    Architecture,
    MaskedHead,
    first_token_classifier,
)
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, EncoderConfig, LayerCount, Size
from akidb_mlx.checkpoint.known_keys import harmless, only
from akidb_mlx.errors import ModelLoadError


class BertConfig(EncoderConfig):
    """The keys of config.json that are read."""

    layers: LayerCount = Field(validation_alias="num_hidden_layers")
    heads: Size = Field(validation_alias="num_attention_heads")
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: int = Field(2, ge=0, lt=1 << 24)
    layer_norm_eps: PositiveFloat = 1e-12
    hidden_act: ActivationName = "gelu"
    position_embedding_type: Literal["absolute"] | None = "absolute"


class DistilBertConfig(BertConfig):
    """The keys of config.json under DistilBERT's names; it has no token types."""

    hidden_size: Size = Field(validation_alias=AliasChoices("dim", "hidden_size"))
    layers: LayerCount = Field(validation_alias=AliasChoices("n_layers", "num_hidden_layers"))
    heads: Size = Field(validation_alias=AliasChoices("n_heads", "num_attention_heads"))
    intermediate_size: Size = Field(validation_alias="hidden_dim")
    hidden_act: ActivationName = Field("gelu", validation_alias="activation")
    type_vocab_size: Literal[0] = 0


class RobertaConfig(BertConfig):
    """The keys of config.json; positions are counted from the padding's id plus 1."""

    pad_token_id: int = Field(1, ge=0, lt=1 << 24)

    @property
    def reserved_positions(self) -> int:
        """Return how many of the model's positions no token ever has: those up to the padding's id."""
        return self.pad_token_id + 1

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        if self.reserved_positions >= self.max_position_embeddings:
            raise ModelLoadError(
                f"config.json: positions follow pad_token_id {self.pad_token_id}, and there are only "
                f"{self.max_position_embeddings}"
            )
        return self


_BERT_HARMLESS = HARMLESS | {
    **harmless(
        "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type",
        reason="is of a head or of BERT's pooler, whose output is not used",
    ),
    **harmless("emb_size cell structure pre_trained training", reason="was used in distilling TinyBERT"),
}
_BERT_UNUSED = ("pooler.", "embeddings.position_ids")

_DISTILBERT_RENAMES = {
    "transformer.layer.": "encoder.layer.",
    "attention.q_lin.": "attention.self.query.",
    "attention.k_lin.": "attention.self.key.",
    "attention.v_lin.": "attention.self.value.",
    "attention.out_lin.": "attention.output.dense.",
    "sa_layer_norm.": "attention.output.LayerNorm.",
    "ffn.lin1.": "intermediate.dense.",
    "ffn.lin2.": "output.dense.",
    "output_layer_norm.": "output.LayerNorm.",
}

BERT = Architecture(
    encoder="bert:Bert",
    config=BertConfig,
    only=ONLY | only("directionality", *(None, "bidi"), reason="attention goes both ways"),
    harmless=_BERT_HARMLESS,
    prefixes=("bert.",),
    unused=_BERT_UNUSED,
    classifier=first_token_classifier("pooler.dense", "Tanh", "classifier"),
    masked_head=MaskedHead(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        bias="cls.predictions.bias",
        activation="hidden_act",
    ),
)
ROBERTA = Architecture(
    encoder="bert:Bert",
    config=RobertaConfig,
    only=ONLY,
    harmless=_BERT_HARMLESS,
    prefixes=("roberta.",),
    unused=_BERT_UNUSED,
    classifier=first_token_classifier("classifier.dense", "Tanh", "classifier.out_proj"),
    masked_head=ROBERTA_HEAD,
)
DISTILBERT = Architecture(
    encoder="bert:Bert",
    config=DistilBertConfig,
    only=ONLY
    | {
        **only("layer_norm_eps", *(None, 1e-12), reason="DistilBERT's is fixed"),
        **only("position_embedding_type", *(None, "absolute"), reason="DistilBERT's positions are absolute"),
        **only("type_vocab_size", *(None, 0), reason="DistilBERT has no token types"),
    },
    harmless=HARMLESS
    | {
        **harmless("sinusoidal_pos_embds", reason="the positions are stored with the weights either way"),
        **harmless("tie_weights_", reason="is of a head, and a model with a head is refused"),
    },
    prefixes=("distilbert.",),
    renames=_DISTILBERT_RENAMES,
    unused=("embeddings.position_ids",),
    classifier=first_token_classifier("pre_classifier", "ReLU", "classifier"),
    masked_head=MaskedHead("vocab_transform", "vocab_layer_norm", "vocab_projector", activation="activation"),
)
