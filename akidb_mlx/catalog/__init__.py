"""The models known by name, as frozen records.

Everything else about a model is read from its own files. The records state what the models' cards say; no revision is
pinned, because none could be checked.
"""

from __future__ import annotations

from akidb_mlx.catalog.embedding import EMBEDDING_MODELS
from akidb_mlx.catalog.multi_vector import MULTI_VECTOR_RECORDS
from akidb_mlx.catalog.record import Language, ModelRecord, SummaryModelRecord, Task
from akidb_mlx.catalog.reranking import RERANKING_MODELS
from akidb_mlx.catalog.sparse import SPARSE_RECORDS
from akidb_mlx.catalog.summaries import SUMMARY_MODELS

__all__ = [
    "ALL_MODELS",
    "CATALOG",
    "MULTI_VECTOR_MODELS",
    "RERANKERS",
    "SPARSE_MODELS",
    "SUMMARY_CATALOG",
    "Language",
    "ModelRecord",
    "SummaryModelRecord",
    "Task",
    "find_record",
]

CATALOG: dict[str, ModelRecord] = {record.name: record for record in EMBEDDING_MODELS}
RERANKERS: dict[str, ModelRecord] = {record.name: record for record in RERANKING_MODELS}
SPARSE_MODELS: dict[str, ModelRecord] = {record.name: record for record in SPARSE_RECORDS}
MULTI_VECTOR_MODELS: dict[str, ModelRecord] = {record.name: record for record in MULTI_VECTOR_RECORDS}
ALL_MODELS: dict[str, ModelRecord] = CATALOG | RERANKERS | SPARSE_MODELS | MULTI_VECTOR_MODELS
SUMMARY_CATALOG: dict[str, SummaryModelRecord] = {record.name: record for record in SUMMARY_MODELS}


def find_record(name: str) -> ModelRecord | None:
    """Return the record of a model that is named as in the catalogue, or by its repository at any revision."""
    if name in ALL_MODELS:
        return ALL_MODELS[name]
    repo_id = name.partition("@")[0]
    return next((record for record in ALL_MODELS.values() if record.repo_id == repo_id), None)
