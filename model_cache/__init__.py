"""Turns a model's name into a verified local directory; knows nothing of MLX.

from model_cache import ModelCache

path = ModelCache().ensure("sentence-transformers/all-MiniLM-L6-v2")
"""

from model_cache.cache import CachedModel, ModelCache
from model_cache.errors import (
    CorruptModelError,
    DiskSpaceError,
    DownloadError,
    InvalidModelNameError,
    ModelCacheError,
    ModelInUseError,
    ModelUnavailableError,
)
from model_cache.eviction import EvictionPlan, Removal

__all__ = [
    "CachedModel",
    "CorruptModelError",
    "DiskSpaceError",
    "DownloadError",
    "EvictionPlan",
    "InvalidModelNameError",
    "ModelCache",
    "ModelCacheError",
    "ModelInUseError",
    "ModelUnavailableError",
    "Removal",
]
