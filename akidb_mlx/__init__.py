"""Exact local text embeddings on MLX.

    from akidb_mlx import EmbeddingService

    with EmbeddingService("minilm-l6-v2") as service:
        vectors = service.embed_array(["Hello, world!"])  # float32, shape (1, 384)

The names in `__all__` are public, and so are the modules `akidb_mlx.errors`, `akidb_mlx.catalog`, `akidb_mlx.ml_funcs`,
`akidb_mlx.entities`, `akidb_mlx.multi_vector`, `akidb_mlx.reranking`, `akidb_mlx.selection`, `akidb_mlx.sparse` and
`akidb_mlx.summarization`;
all other modules may change in any release.

Importing this package costs next to nothing: a name is loaded when it is first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder
    from akidb_mlx.entities import Entity, EntityExtractor
    from akidb_mlx.errors import (
        AkidbMlxError,
        ConfigurationError,
        DeadlineExceededError,
        InferenceError,
        InvalidInputError,
        ModelLoadError,
        ModelNotFoundError,
        NotTrainedError,
        ReentrantCallError,
        RemoteServiceError,
        ServiceClosedError,
        ServiceOverloadedError,
    )
    from akidb_mlx.multi_vector import MultiVectorBatch, MultiVectorEmbedder, MultiVectorOptions
    from akidb_mlx.options import EmbedOptions
    from akidb_mlx.pool import ModelPool
    from akidb_mlx.quantized import calibration_ranges, dequantize, hamming_distances, quantize, rescore
    from akidb_mlx.reports import Health, ModelInfo, ServiceMetrics, TextModelInfo
    from akidb_mlx.reranking import Reranker, RerankerInfo, RerankOptions, ScoreBatch
    from akidb_mlx.selection import Route, Router, Selector
    from akidb_mlx.service import EmbeddingService
    from akidb_mlx.settings import Settings
    from akidb_mlx.sparse import SparseBatch, SparseEmbedder, SparseOptions, SparseVector
    from akidb_mlx.summarization import Summarizer
    from akidb_mlx.vectors import EmbeddingBatch

__version__ = "0.1.0"
__all__ = [
    "AkidbMlxError",
    "ConfigurationError",
    "DeadlineExceededError",
    "EmbedOptions",
    "Embedder",
    "EmbeddingBatch",
    "EmbeddingService",
    "Entity",
    "EntityExtractor",
    "Health",
    "InferenceError",
    "InvalidInputError",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelPool",
    "MultiVectorBatch",
    "MultiVectorEmbedder",
    "MultiVectorOptions",
    "NotTrainedError",
    "ReentrantCallError",
    "RemoteServiceError",
    "RerankOptions",
    "Reranker",
    "RerankerInfo",
    "Route",
    "Router",
    "ScoreBatch",
    "Selector",
    "ServiceClosedError",
    "ServiceMetrics",
    "ServiceOverloadedError",
    "Settings",
    "SparseBatch",
    "SparseEmbedder",
    "SparseOptions",
    "SparseVector",
    "Summarizer",
    "TextModelInfo",
    "__version__",
    "calibration_ranges",
    "dequantize",
    "hamming_distances",
    "quantize",
    "rescore",
]

_MODULES = {
    "EmbedOptions": "options",
    "Embedder": "embedder",
    "EmbeddingBatch": "vectors",
    "EmbeddingService": "service",
    "Entity": "entities",
    "EntityExtractor": "entities",
    "Health": "reports",
    "ModelInfo": "reports",
    "ModelPool": "pool",
    "RerankOptions": "reranking",
    "Reranker": "reranking",
    "RerankerInfo": "reranking",
    "ScoreBatch": "reranking",
    **dict.fromkeys(("Route", "Router", "Selector"), "selection"),
    "ServiceMetrics": "reports",
    "Settings": "settings",
    **dict.fromkeys(("MultiVectorBatch", "MultiVectorEmbedder", "MultiVectorOptions"), "multi_vector"),
    **dict.fromkeys(("SparseBatch", "SparseEmbedder", "SparseOptions", "SparseVector"), "sparse"),
    "Summarizer": "summarization",
    "TextModelInfo": "reports",
    **dict.fromkeys(
        ("calibration_ranges", "dequantize", "hamming_distances", "quantize", "rescore"),
        "quantized",
    ),
}

# A library leaves it to the program where its messages go.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
