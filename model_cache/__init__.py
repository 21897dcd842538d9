"""Turns a model's name into a verified local directory; knows nothing of MLX.

from model_cache import ModelCache

path = ModelCache().ensure("sentence-transformers/all-MiniLM-L6-v2")
"""

from model_cache.cache import ModelCache
from model_cache.errors import CorruptModelError, InvalidModelNameError, ModelCacheError, ModelUnavailableError

__all__ = ["CorruptModelError", "InvalidModelNameError", "ModelCache", "ModelCacheError", "ModelUnavailableError"]
