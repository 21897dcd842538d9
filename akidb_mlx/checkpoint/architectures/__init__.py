"""The architectures that are read, by `model_type` in config.json; each family is described in a file of its own."""

from __future__ import annotations

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.bert import BERT, DISTILBERT, ROBERTA
from akidb_mlx.checkpoint.architectures.gemma3 import GEMMA3
from akidb_mlx.checkpoint.architectures.llama import EUROBERT, LLAMA, MINISTRAL3, MISTRAL
from akidb_mlx.checkpoint.architectures.qwen2 import QWEN2
from akidb_mlx.checkpoint.architectures.qwen3 import QWEN3

ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "ministral3": MINISTRAL3,
    "eurobert": EUROBERT,
    "gemma3_text": GEMMA3,
}
