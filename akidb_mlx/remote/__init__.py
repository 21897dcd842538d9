"""Embeddings of models that another server runs, behind an OpenAI-compatible API.

    from akidb_mlx.remote import OpenAIEmbedder

    with OpenAIEmbedder("openai:text-embedding-3-small") as embedder:
        vectors = embedder.embed(["Hello, world!"])

It needs the extra `openai`, whose client is imported when an embedder is created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akidb_mlx.remote.embedder import OpenAIEmbedder

__all__ = ["OpenAIEmbedder"]


def __getattr__(name: str) -> Any:
    if name != "OpenAIEmbedder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from akidb_mlx.remote.embedder import OpenAIEmbedder

    return OpenAIEmbedder
