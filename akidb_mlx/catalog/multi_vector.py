"""Multi-vector models, by what their cards state."""

from __future__ import annotations

from akidb_mlx.catalog.record import ModelRecord

_MB = 10**6

MULTI_VECTOR_RECORDS = (
    ModelRecord(
        name="answerai-colbert-small-v1",
        repo_id="answerdotai/answerai-colbert-small-v1",
        description="ColBERT of 33 million parameters: a vector for each token, small and fast",
        licence="Apache-2.0",
        size=130 * _MB,
        task="multi-vector",
        vector_size=96,
    ),
    ModelRecord(
        name="colbert-v2",
        repo_id="lightonai/colbertv2.0",
        description="ColBERT v2: a vector for each token",
        licence="MIT",
        size=440 * _MB,
        task="multi-vector",
        vector_size=128,
    ),
    ModelRecord(
        name="gte-moderncolbert-v1",
        repo_id="lightonai/GTE-ModernColBERT-v1",
        description="ColBERT on ModernBERT: a vector for each token, long texts",
        licence="Apache-2.0",
        size=600 * _MB,
        task="multi-vector",
        vector_size=128,
        max_tokens=8192,
    ),
)
