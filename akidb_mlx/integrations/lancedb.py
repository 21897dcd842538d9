"""The embedding function of LanceDB, which its registry has as "akidb-mlx" once this module is imported."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.quantized import OutputVectors

with needs_extra("lancedb"):
    from lancedb.embeddings import TextEmbeddingFunction, register


@register("akidb-mlx")
class AkidbEmbeddingFunction(TextEmbeddingFunction):
    """Vectors of akidb-mlx for LanceDB's tables, which store the model's name and open it again by that.

    Attributes:
        name: the model's name.
        device: "auto", "gpu" or "cpu"; the settings' if None.
        dimensions: how many values a vector has; the model's default if None.
        on_overflow: how a text is treated that is longer than the model takes.
    """

    name: str
    device: str | None = None
    dimensions: int | None = None
    on_overflow: OverflowPolicy = "truncate"

    @cached_property
    def _embedder(self) -> RoleEmbedder:
        return RoleEmbedder(self.name, device=self.device, dimensions=self.dimensions, on_overflow=self.on_overflow)

    def ndims(self) -> int:
        """Return how many values a vector has."""
        return self._embedder.dimension

    def generate_embeddings(self, texts: Any, *_arguments: Any, **_options: Any) -> list[OutputVectors]:
        """Return the vectors of texts that are to be found."""
        return list(self._embedder.embed(list(texts), "document"))

    def compute_query_embeddings(self, query: Any, *_arguments: Any, **_options: Any) -> list[OutputVectors]:
        """Return the vectors of texts to search with."""
        return list(self._embedder.embed(self.sanitize_input(query), "query"))
