"""A cache that turns a model's name into a verified local directory; it needs no part of MLX.

    from model_cache import ModelCache

    path = ModelCache().ensure("sentence-transformers/all-MiniLM-L6-v2")

The names below are public; the modules that they come from are not, apart from `model_cache.errors`.
"""

from model_cache.cache import CachedModel, ModelCache
from model_cache.config import CacheConfig
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
    "CacheConfig",
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
