"""Summaries of messages: sentences chosen by their vectors, or a text written by a language model.

    from akidb_mlx.summarization import Summarizer

    with Summarizer() as summarizer:
        print(summarizer.summarize(["a long text", "another"], max_words=60))

Importing this package brings in neither mlx_lm nor transformers; a generative model does when it is loaded.
"""

from __future__ import annotations

from akidb_mlx.summarization.summarizer import Summarizer

__all__ = ["Summarizer"]
