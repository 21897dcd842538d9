"""MPNet: BERT's layers, RoBERTa's positions, and relative positions beside them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from akidb_mlx.checkpoint.architectures.architecture import ROBERTA_HEAD, Architecture, first_token_classifier
from akidb_mlx.checkpoint.architectures.bert import RobertaConfig
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.known_keys import only


class MPNetConfig(RobertaConfig):
    """The keys of config.json that are read."""

    # Positions follow this id whatever config.json says; so another one would be counted otherwise than it looks.
    pad_token_id: Literal[1] = 1
    type_vocab_size: Literal[0] = 0
    # Rows of the table. transformers always fills 32 of them, so that fewer fail and more are left over.
    relative_attention_num_buckets: int = Field(32, ge=32, lt=1 << 24)


MPNET = Architecture(
    encoder="mpnet:MPNet",
    config=MPNetConfig,
    only=ONLY | only("type_vocab_size", *(None, 0), reason="MPNet has no token types"),
    harmless=HARMLESS,
    prefixes=("mpnet.",),
    renames={
        "attention.attn.q.": "attention.self.query.",
        "attention.attn.k.": "attention.self.key.",
        "attention.attn.v.": "attention.self.value.",
        "attention.attn.o.": "attention.output.dense.",
        "attention.LayerNorm.": "attention.output.LayerNorm.",
    },
    unused=("pooler.", "embeddings.position_ids"),
    classifier=first_token_classifier("classifier.dense", "Tanh", "classifier.out_proj"),
    masked_head=ROBERTA_HEAD,
)
