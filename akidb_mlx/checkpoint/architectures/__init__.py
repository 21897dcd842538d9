"""The architectures that are read, by `model_type` in config.json; each family is described in a file of its own."""

from __future__ import annotations

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.bert import BERT, DISTILBERT, ROBERTA
from akidb_mlx.checkpoint.architectures.embedding_gemma2 import EMBEDDING_GEMMA2, EMBEDDING_GEMMA2_TEXT
from akidb_mlx.checkpoint.architectures.gemma3 import GEMMA3
from akidb_mlx.checkpoint.architectures.qwen3 import QWEN3

ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "qwen3": QWEN3,
    "gemma3_text": GEMMA3,
    "embedding_gemma2": EMBEDDING_GEMMA2,
    "embedding_gemma2_text": EMBEDDING_GEMMA2_TEXT,
}
