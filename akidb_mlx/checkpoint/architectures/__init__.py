"""The architectures that are read, by `model_type` in config.json; each family is described in a file of its own."""

from __future__ import annotations

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.bert import BERT, DISTILBERT, ROBERTA
from akidb_mlx.checkpoint.architectures.gemma3 import GEMMA3
from akidb_mlx.checkpoint.architectures.gte import GTE
from akidb_mlx.checkpoint.architectures.modernbert import MODERNBERT
from akidb_mlx.checkpoint.architectures.mpnet import MPNET
from akidb_mlx.checkpoint.architectures.nomic_bert import NOMIC_BERT
from akidb_mlx.checkpoint.architectures.qwen3 import QWEN3

ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "nomic_bert": NOMIC_BERT,
    "gte": GTE,
    "qwen3": QWEN3,
    "gemma3_text": GEMMA3,
}
