"""The architectures that are read, by `model_type` in config.json; each family is described in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from akidb_mlx.checkpoint.architectures.architecture import Architecture


class _Architectures(Mapping[str, Architecture]):
    """The records by name, each imported when it is asked for: a process reads few of them."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._records: dict[str, Architecture] = {}

    def __getitem__(self, model_type: str) -> Architecture:
        if model_type not in self._records:  # else nothing is imported: a signal handler may hold the lock of imports
            module, _, name = self._places[model_type].partition(":")
            self._records[model_type] = getattr(import_module(f"{__name__}.{module}"), name)
        return self._records[model_type]

    def __contains__(self, model_type: object) -> bool:
        return model_type in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


ARCHITECTURES = _Architectures(
    {
        "bert": "bert:BERT",
        "distilbert": "bert:DISTILBERT",
        "roberta": "bert:ROBERTA",
        "xlm-roberta": "bert:ROBERTA",
        "modernbert": "modernbert:MODERNBERT",
        "mpnet": "mpnet:MPNET",
        "nomic_bert": "nomic_bert:NOMIC_BERT",
        "gte": "gte:GTE",
        "qwen2": "qwen2:QWEN2",
        "qwen3": "qwen3:QWEN3",
        "llama": "llama:LLAMA",
        "mistral": "llama:MISTRAL",
        "ministral3": "llama:MINISTRAL3",
        "eurobert": "llama:EUROBERT",
        "gemma3_text": "gemma3:GEMMA3",
        "embedding_gemma2": "embedding_gemma2:EMBEDDING_GEMMA2",
        "embedding_gemma2_text": "embedding_gemma2:EMBEDDING_GEMMA2_TEXT",
    }
)
