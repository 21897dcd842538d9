"""The embeddings of LangChain."""

from __future__ import annotations

from akidb_mlx.embedder import Embedder
from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy

with needs_extra("langchain"):
    from langchain_core.embeddings import Embeddings


class AkidbEmbeddings(Embeddings):
    """Vectors of akidb-mlx for LangChain's vector stores and retrievers."""

    def __init__(
        self,
        model: str | Embedder,
        *,
        device: str | None = None,
        dimensions: int | None = None,
        on_overflow: OverflowPolicy = "truncate",
    ) -> None:
        """Load a model; see `RoleEmbedder`."""
        self._embedder = RoleEmbedder(model, device=device, dimensions=dimensions, on_overflow=on_overflow)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are to be found."""
        vectors: list[list[float]] = self._embedder.embed(texts, "document").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text to search with."""
        vector: list[float] = self._embedder.embed([text], "query")[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are to be found, without blocking the event loop."""
        vectors: list[list[float]] = (await self._embedder.aembed(texts, "document")).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a text to search with, without blocking the event loop."""
        vector: list[float] = (await self._embedder.aembed([text], "query"))[0].tolist()
        return vector
