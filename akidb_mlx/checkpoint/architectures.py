"""The documented rules of each architecture, for checkpoints whose own files are silent.

Community conversions often lose the sentence-transformers files; these records decide then. A field that is None means
that the architecture has no rule; a checkpoint without one of its own is refused.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from akidb_mlx.errors import ModelLoadError

PoolingMode = Literal["mean", "cls", "last"]


@dataclass(frozen=True)
class Architecture:
    """The documented rules of one `model_type`.

    Attributes:
        pooling: how the model's publisher pools, or None.
        dense_layers: how many Dense layers, without activation, follow the pooling.
        prompts: the prompts its publisher documents, by name.
        final_token: the token that must end every text, for last-token pooling.
        matryoshka: whether the published embedding models were trained for shorter vectors.
        float16_overflows: whether activations leave the range of float16.
        default_padding_id: the default of `pad_token_id` where positions are counted from it plus 1 (RoBERTa); None
            where they are counted from 0.
        prefixes: strings that may precede a tensor's name.
        renames: parts of tensors' names, and the standard architecture's names for them.
        unused: tensors, by the start of their name, that are no part of token vectors and are not read.
        original: the publisher's repository, for a person who lacks some of its files.
    """

    pooling: PoolingMode | None = None
    dense_layers: int = 0
    prompts: dict[str, str] = field(default_factory=dict)
    final_token: str | None = None
    matryoshka: bool = False
    float16_overflows: bool = False
    default_padding_id: int | None = None
    prefixes: tuple[str, ...] = ("model.",)
    renames: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    original: str | None = None

    def tensor_name(self, stored: str) -> str:
        """Return the encoder's name for a tensor that is stored as `stored`."""
        prefix = next((prefix for prefix in self.prefixes if stored.startswith(prefix)), "")
        name = stored[len(prefix) :]
        for part, standard in self.renames.items():
            name = name.replace(part, standard)
        return name

    def layer_name(self, stored: str) -> str:
        """Return the encoder's name for a layer whose tensors' names begin with `stored`."""
        return self.tensor_name(f"{stored}.").removesuffix(".")

    def padding_id(self, config: Mapping[str, Any]) -> int | None:
        """Return the `pad_token_id` that positions are counted from; None where they are counted from 0.

        Raises:
            ModelLoadError: config.json gives something other than a token.
        """
        if self.default_padding_id is None:
            return None
        found = config.get("pad_token_id", self.default_padding_id)
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise ModelLoadError(
                f"config.json: pad_token_id must be an integer of 0 or more, found {reprlib.repr(found)}"
            )
        return found


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

_ROBERTA = Architecture(default_padding_id=1, prefixes=("roberta.",), unused=_BERT_UNUSED)

# By `model_type` in config.json. Prompts: the model cards of Qwen/Qwen3-Embedding-0.6B and google/embeddinggemma-300m.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(prefixes=("bert.",), unused=_BERT_UNUSED),
    "distilbert": Architecture(
        prefixes=("distilbert.",), renames=_DISTILBERT_RENAMES, unused=("embeddings.position_ids",)
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "qwen3": Architecture(
        pooling="last",
        prompts={
            "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
            "document": "",
        },
        final_token="<|endoftext|>",
        matryoshka=True,
        original="Qwen/Qwen3-Embedding-0.6B",
    ),
    "gemma3_text": Architecture(
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
    ),
}
