"""The documented rules of each architecture, for checkpoints whose own files are silent.

Community conversions often lose the sentence-transformers files; these records decide then. A field that is None means
that the architecture has no rule; a checkpoint without one of its own is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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
        positions_follow_padding: whether positions are counted from `pad_token_id` + 1 (RoBERTa).
        prefixes: strings that may precede a tensor's name.
        renames: parts of tensors' names, and the standard architecture's names for them.
        unused: tensors, by the start of their name, that belong to other tasks and are not read.
    """

    pooling: PoolingMode | None = None
    dense_layers: int = 0
    prompts: dict[str, str] = field(default_factory=dict)
    final_token: str | None = None
    matryoshka: bool = False
    float16_overflows: bool = False
    positions_follow_padding: bool = False
    prefixes: tuple[str, ...] = ("model.",)
    renames: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def tensor_name(self, stored: str) -> str:
        """Return the encoder's name for a tensor that is stored as `stored`."""
        prefix = next((prefix for prefix in self.prefixes if stored.startswith(prefix)), "")
        name = stored[len(prefix) :]
        for part, standard in self.renames.items():
            name = name.replace(part, standard)
        return name


_BERT_UNUSED = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")

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

_ROBERTA = Architecture(positions_follow_padding=True, prefixes=("roberta.",), unused=_BERT_UNUSED)

# By `model_type` in config.json. Prompts: the model cards of Qwen/Qwen3-Embedding-0.6B and google/embeddinggemma-300m.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(prefixes=("bert.",), unused=_BERT_UNUSED),
    "distilbert": Architecture(
        prefixes=("distilbert.",), renames=_DISTILBERT_RENAMES, unused=("vocab_", "pre_classifier.", "classifier.")
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
        unused=("lm_head.",),
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
        unused=("lm_head.",),
    ),
}
