"""Summaries of messages: sentences chosen by their vectors, or a text that a language model writes.

    from akidb_mlx.summarization import Summarizer

    with Summarizer() as summarizer:
        print(summarizer.summarize(["a long text", "another"], max_words=60))

Importing this package costs next to nothing: `Summarizer` is loaded when it is first used, and mlx_lm and transformers
when a generative model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akidb_mlx.summarization.summarizer import Summarizer

__all__ = ["Summarizer"]


def __getattr__(name: str) -> Any:
    if name != "Summarizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from akidb_mlx.summarization.summarizer import Summarizer

    return Summarizer
