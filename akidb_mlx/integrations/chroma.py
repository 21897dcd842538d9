"""The embedding function of Chroma."""

from __future__ import annotations

from typing import Any

from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy

with needs_extra("chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function


@register_embedding_function
class AkidbEmbeddingFunction(EmbeddingFunction[Documents]):
    """Vectors of akidb-mlx for Chroma's collections, which store the model's name and open it again by that."""

    def __init__(
        self,
        model_name: str,
        device: str | None = None,
        dimensions: int | None = None,
        on_overflow: OverflowPolicy = "truncate",
    ) -> None:
        """Load a model; see `RoleEmbedder`."""
        self._config = {
            "model_name": model_name,
            "device": device,
            "dimensions": dimensions,
            "on_overflow": on_overflow,
        }
        self._embedder = RoleEmbedder(model_name, device=device, dimensions=dimensions, on_overflow=on_overflow)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma looks at the name
        """Return the vectors of texts that are to be found."""
        return self._embed(input, "document")

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - likewise
        """Return the vectors of texts to search with."""
        return self._embed(input, "query")

    def _embed(self, texts: Documents, input_type: str) -> Embeddings:
        return list(self._embedder.embed(texts, input_type))

    @staticmethod
    def name() -> str:
        """Return the name that a collection stores."""
        return "akidb_mlx"

    def default_space(self) -> Space:
        """Return the distance for vectors of length 1."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this function, which a collection stores."""
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> AkidbEmbeddingFunction:
        """Return the function of a stored collection."""
        return AkidbEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model for vectors that are stored.

        Raises:
            ValueError: the model or the size of its vectors would change.
        """
        for key in ("model_name", "dimensions"):
            if new_config.get(key) != old_config.get(key):
                raise ValueError(f"{key} of a collection cannot change: its vectors are of {old_config.get(key)!r}")
