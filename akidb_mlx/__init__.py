"""Exact local text embeddings on MLX.

    from akidb_mlx import EmbeddingService

    with EmbeddingService("minilm-l6-v2") as service:
        vectors = service.embed_array(["Hello, world!"])  # float32, shape (1, 384)

Importing this package costs next to nothing: the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akidb_mlx.pool import ModelPool
    from akidb_mlx.service import EmbeddingService
    from akidb_mlx.settings import Settings
    from akidb_mlx.vectors import EmbeddingBatch

__version__ = "0.1.0"
__all__ = ["EmbeddingBatch", "EmbeddingService", "ModelPool", "Settings", "__version__"]

_HOME = {
    "EmbeddingBatch": "akidb_mlx.vectors",
    "EmbeddingService": "akidb_mlx.service",
    "ModelPool": "akidb_mlx.pool",
    "Settings": "akidb_mlx.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
