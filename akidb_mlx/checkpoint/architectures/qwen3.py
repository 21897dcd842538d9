"""Qwen3. The prompts are those of Qwen/Qwen3-Embedding-0.6B's model card."""

from __future__ import annotations

from typing import ClassVar

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.decoder import BiasedAttention
from akidb_mlx.checkpoint.architectures.qwen2 import QwenConfig
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY


class Qwen3Config(QwenConfig, BiasedAttention):
    """The keys of config.json that are read.

    transformers ignores `use_bidirectional_attention`. It marks voyage-4-nano, whose own code sees both sides and puts
    a linear layer after the last norm; a model without that layer is refused, as it would be of another kind.
    """

    head_norms: ClassVar[bool] = True

    use_bidirectional_attention: bool | None = False

    @property
    def causal(self) -> bool:
        """Return whether no token sees those after it."""
        return self.is_causal and not self.use_bidirectional_attention

    @property
    def head(self) -> str | None:
        """Return the name of the linear layer after the last norm; None for none."""
        return "linear" if self.use_bidirectional_attention else None


QWEN3 = Architecture(
    encoder="decoder:Decoder",
    config=Qwen3Config,
    only=ONLY | ROTARY_ONLY,
    harmless=HARMLESS,
    own_code=("modeling_qwen3_bidirectional.Qwen3BidirectionalModel",),
    own_code_flag="use_bidirectional_attention",
    ruled=lambda config: isinstance(config, Qwen3Config) and config.causal,
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
