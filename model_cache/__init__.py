"""A cache that turns a model's name into a verified local directory; it needs no part of MLX.

    from model_cache import ModelCache

    path = ModelCache().ensure("sentence-transformers/all-MiniLM-L6-v2")

These names and `model_cache.errors` are public; the other modules serve this package and akidb_mlx only.
"""

from model_cache.cache import ModelCache, Weights
from model_cache.cached_model import CachedModel
from model_cache.config import CacheConfig
from model_cache.errors import (
    CacheAccessError,
    CacheLockedError,
    CorruptModelError,
    DiskSpaceError,
    DownloadError,
    InvalidModelNameError,
    ModelCacheError,
    ModelInUseError,
    ModelUnavailableError,
    UploadError,
)
from model_cache.eviction import EvictionPlan, Removal

__all__ = [
    "CacheAccessError",
    "CacheConfig",
    "CacheLockedError",
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
    "UploadError",
    "Weights",
]
