"""Rerankers, by what their cards state."""

from __future__ import annotations

from akidb_mlx.catalog.record import ModelRecord

_MB = 10**6

RERANKING_MODELS = (
    *(
        ModelRecord(
            name=f"ms-marco-minilm-l{layers}-v2",
            repo_id=f"cross-encoder/ms-marco-MiniLM-L{layers}-v2",
            description=f"MiniLM with {layers} layers, trained on MS MARCO: small and fast",
            licence="Apache-2.0",
            size=megabytes * _MB,
            task="reranking",
        )
        for layers, megabytes in ((6, 91), (12, 130))
    ),
    *(
        ModelRecord(
            name=f"bge-reranker-{name}",
            repo_id=f"BAAI/bge-reranker-{name}",
            description=description,
            licence=licence,
            size=megabytes * _MB,
            task="reranking",
            languages=("multilingual",) if name == "v2-m3" else ("en", "zh"),
            max_tokens=max_tokens,
        )
        for name, megabytes, licence, max_tokens, description in (
            ("base", 1100, "MIT", 512, "BGE reranker, base"),
            ("large", 2200, "MIT", 512, "BGE reranker, large"),
            ("v2-m3", 2300, "Apache-2.0", 8192, "BGE reranker v2: long texts"),
        )
    ),
    ModelRecord(
        name="qwen3-reranker-0.6b",
        repo_id="Qwen/Qwen3-Reranker-0.6B",
        description="Qwen3-Reranker 0.6B: a language model that answers yes or no; instructions, long texts",
        licence="Apache-2.0",
        size=1200 * _MB,
        task="reranking",
        languages=("multilingual",),
        max_tokens=32768,
    ),
)
