"""Sparse models, by what their cards state."""

from __future__ import annotations

from akidb_mlx.catalog.record import ModelRecord

_MB = 10**6

SPARSE_RECORDS = (
    ModelRecord(
        name="opensearch-sparse-doc-v3-distill",
        repo_id="opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill",
        description="OpenSearch sparse v3: search by words; queries are looked up in a table, without a model",
        licence="Apache-2.0",
        size=270 * _MB,
        task="sparse",
        vector_size=30522,
    ),
    ModelRecord(
        name="splade-pp-en-v1",
        repo_id="prithivida/Splade_PP_en_v1",
        description="SPLADE++: search by words that the model adds to a text",
        licence="Apache-2.0",
        size=440 * _MB,
        task="sparse",
        vector_size=30522,
    ),
    ModelRecord(
        name="splade-v3",
        repo_id="naver/splade-v3",
        description="SPLADE v3: search by words that the model adds to a text; gated on the Hub",
        licence="CC-BY-NC-SA-4.0",
        size=440 * _MB,
        task="sparse",
        vector_size=30522,
        commercial_use=False,
    ),
)
