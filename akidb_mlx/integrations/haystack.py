"""The text and document embedders of Haystack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy

with needs_extra("haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict


class _AkidbEmbedder:
    """The arguments that both components have, and their model, which is loaded by `warm_up`."""

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dimensions: int | None = None,
        on_overflow: OverflowPolicy = "truncate",
    ) -> None:
        self.model, self.device, self.dimensions, self.on_overflow = model, device, dimensions, on_overflow
        self._embedder: RoleEmbedder | None = None

    def warm_up(self) -> RoleEmbedder:
        """Load the model, if it is not loaded yet, and return its embedder."""
        if self._embedder is None:
            self._embedder = RoleEmbedder(
                self.model, device=self.device, dimensions=self.dimensions, on_overflow=self.on_overflow
            )
        return self._embedder

    def _arguments(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "device": self.device,
            "dimensions": self.dimensions,
            "on_overflow": self.on_overflow,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dictionary, which a pipeline stores."""
        stored: dict[str, Any] = default_to_dict(self, **self._arguments())
        return stored

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Return the component of a stored pipeline."""
        return default_from_dict(cls, data)


@component
class AkidbTextEmbedder(_AkidbEmbedder):
    """Embeds a text to search with."""

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Return the vector of a text, as `embedding`."""
        return {"embedding": self.warm_up().embed([text], "query")[0].tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Return the vector of a text, as `embedding`, without blocking the event loop."""
        return {"embedding": (await self.warm_up().aembed([text], "query"))[0].tolist()}


@component
class AkidbDocumentEmbedder(_AkidbEmbedder):
    """Embeds documents that are to be found.

    Attributes:
        meta_fields_to_embed: values of a document's `meta` that are embedded before its content.
        embedding_separator: what stands between them.
    """

    def __init__(
        self,
        model: str,
        *,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **options: Any,
    ) -> None:
        _AkidbEmbedder.__init__(self, model, **options)  # `component` makes the class anew, which super() does not know
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def _arguments(self) -> dict[str, Any]:
        fields, separator = self.meta_fields_to_embed, self.embedding_separator
        return {**_AkidbEmbedder._arguments(self), "meta_fields_to_embed": fields, "embedding_separator": separator}

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return copies of documents with their vectors, as `documents`."""
        vectors = self.warm_up().embed(self._texts(documents), "document")
        return {
            "documents": [replace(one, embedding=row.tolist()) for one, row in zip(documents, vectors, strict=True)]
        }

    def _texts(self, documents: list[Document]) -> list[str]:
        parts = (
            [
                *(str(one.meta[name]) for name in self.meta_fields_to_embed if one.meta.get(name) is not None),
                one.content or "",
            ]
            for one in documents
        )
        return [self.embedding_separator.join(part) for part in parts]
