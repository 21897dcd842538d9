"""Gemma 3. The prompts are those of google/embeddinggemma-300m's model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field, PositiveFloat

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerType, Size
from akidb_mlx.checkpoint.architectures.decoder import BiasedAttention
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY
from akidb_mlx.checkpoint.known_keys import Only


class Gemma3Config(BiasedAttention):
    """The keys of config.json that are read."""

    head_norms: ClassVar[bool] = True
    default_thetas: ClassVar[Mapping[LayerType, float]] = {"sliding_attention": 1e4, "full_attention": 1e6}
    older_thetas: ClassVar[Mapping[LayerType, str]] = {
        "sliding_attention": "rope_local_base_freq",
        "full_attention": "rope_theta",
    }

    max_position_embeddings: Size = 131_072
    rope_local_base_freq: Any = None
    query_pre_attn_scalar: PositiveFloat
    sliding_window: Size
    hidden_act: ActivationName = Field("gelu_pytorch_tanh", validation_alias="hidden_activation")
    use_bidirectional_attention: bool | None = False
    sliding_window_pattern: Size = Field(
        6, validation_alias=AliasChoices("sliding_window_pattern", "_sliding_window_pattern")
    )
    attn_logit_softcapping: None = None

    @property
    def causal(self) -> bool:
        """Return whether no token sees those after it."""
        return not self.use_bidirectional_attention

    @property
    def window(self) -> int | None:
        """Return the sliding window, which is half on each side where tokens see both."""
        return self.sliding_window if self.causal else self.sliding_window // 2

    @property
    def default_types(self) -> list[LayerType]:
        """Return the type of each layer: older files state the period of full attention."""
        period = self.sliding_window_pattern
        return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(self.layers)]


GEMMA3 = Architecture(
    encoder="gemma3:Gemma3",
    config=Gemma3Config,
    only=ONLY
    | ROTARY_ONLY
    | {
        "is_causal": Only((True,), "only use_bidirectional_attention says here who sees whom"),
        "hidden_act": Only((None, "gelu_pytorch_tanh"), "Gemma 3 names its activation hidden_activation"),
    },
    harmless=HARMLESS,
    ruled=lambda config: isinstance(config, Gemma3Config) and bool(config.use_bidirectional_attention),
    pooling="mean",
    dense_layers=2,
    prompts={
        "query": "task: search result | query: ",
        "document": "title: none | text: ",
        "BitextMining": "task: search result | query: ",
        "Clustering": "task: clustering | query: ",
        "Classification": "task: classification | query: ",
        "InstructionRetrieval": "task: code retrieval | query: ",
        "MultilabelClassification": "task: classification | query: ",
        "PairClassification": "task: sentence similarity | query: ",
        "Reranking": "task: search result | query: ",
        "Retrieval": "task: search result | query: ",
        "Retrieval-query": "task: search result | query: ",
        "Retrieval-document": "title: none | text: ",
        "STS": "task: sentence similarity | query: ",
        "Summarization": "task: summarization | query: ",
    },
    matryoshka=True,
    float16_overflows=True,
    original="google/embeddinggemma-300m",
)
