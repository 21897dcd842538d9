"""Vectors of models that another server runs, behind an OpenAI-compatible API.

    from akidb_mlx.remote import OpenAIEmbedder

    with OpenAIEmbedder("openai:text-embedding-3-small") as embedder:
        vectors = embedder.embed(["Hello, world!"])

It needs the extra `openai`, whose client is imported when an embedder is created.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akidb_mlx.remote.batches import Limits
    from akidb_mlx.remote.embedder import OpenAIEmbedder

__all__ = ["Limits", "OpenAIEmbedder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'batches' if name == 'Limits' else 'embedder'}"), name)
