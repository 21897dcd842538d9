"""The models that a parent has asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from akidb_mlx.catalog import find_record
from akidb_mlx.closeable import Closeable
from akidb_mlx.errors import InvalidInputError

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

# Loads the model of a name from a cache folder, or from that of the settings for None.
Load = Callable[[str, str | None], "Embedder"]


def load_service(name: str, cache_dir: str | None) -> Embedder:
    """Load a model as the settings (`AKIDB_*`) say.

    Args:
        name: the model's name.
        cache_dir: the folder that models lie in, or one in whose `models/` they do; None for that of the settings.
    """
    from akidb_mlx.service import EmbeddingService  # a ping need not wait for it
    from akidb_mlx.settings import Settings

    if cache_dir is None:
        return EmbeddingService(name)
    folder = Path(cache_dir)
    return EmbeddingService(name, settings=Settings(cache_dir=folder.parent if folder.name == "models" else folder))


class LoadedModels(Closeable):
    """Models by name; one that the catalogue knows has two, its short name and its repository."""

    def __init__(self, load: Load = load_service) -> None:
        self._load = load
        self._models: dict[str, Embedder] = {}

    def load(self, name: str, cache_dir: str | None) -> tuple[Embedder, bool]:
        """Return a model and whether it was loaded now: it was not there yet, or has failed for good.

        Raises:
            AkidbMlxError: it cannot be loaded.
        """
        key = _key(name)
        model = self._models.get(key)
        if model is not None and model.get_model_info()["status"] not in ("closed", "failed"):
            return model, False
        self._models[key] = self._load(name, cache_dir)
        return self._models[key], True

    def get(self, name: str) -> Embedder:
        """Return a model that was loaded.

        Raises:
            InvalidInputError: it was not.
        """
        model = self._models.get(_key(name))
        if model is None:
            loaded = ", ".join(self._models) or "none"
            raise InvalidInputError(f"model {name[:80]!r} is not loaded: call load_model first (loaded: {loaded})")
        return model

    def close(self) -> None:
        """Close all models, without finishing their calls."""
        for model in self._models.values():
            model.close()


def _key(name: str) -> str:
    """Return the name that a model is kept under: its repository, where its short name means the same vectors."""
    record = None if "@" in name else find_record(name)
    return name if record is None or record.dimensions is not None else record.repo_id
