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
        max_tokens=300,
    ),
    ModelRecord(
        name="lateon",
        repo_id="lightonai/LateOn",
        description="LateOn, a ColBERT on ModernBERT: a vector for each token",
        licence="Apache-2.0",
        size=600 * _MB,
        task="multi-vector",
        vector_size=128,
        max_tokens=300,
    ),
)
