"""The embedding model of LlamaIndex."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PrivateAttr

from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy

with needs_extra("llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding


class AkidbEmbedding(BaseEmbedding):
    """Vectors of akidb-mlx for LlamaIndex's indexes and retrievers."""

    embed_batch_size: int = Field(default=512, gt=0, description="Texts that are embedded at once.")
    device: str | None = Field(default=None, description="auto, gpu or cpu; the settings' if None.")
    dimensions: int | None = Field(default=None, description="Values of a vector; the model's default if None.")
    on_overflow: OverflowPolicy = Field(default="truncate", description="Treatment of a text that is too long.")

    _embedder: RoleEmbedder = PrivateAttr()

    def __init__(self, model_name: str, **fields: Any) -> None:
        """Load a model; see `RoleEmbedder`."""
        super().__init__(model_name=model_name, **fields)
        self._embedder = RoleEmbedder(
            model_name, device=self.device, dimensions=self.dimensions, on_overflow=self.on_overflow
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex stores."""
        return "AkidbEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._embedder.embed([query], "query")[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self._embedder.aembed([query], "query"))[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.embed(texts, "document").tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self._embedder.aembed(texts, "document")).tolist()
        return vectors
