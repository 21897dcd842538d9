"""Embed a few sentences with real weights and search among them: `make demo`."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from akidb_mlx import EmbeddingService

DOCUMENTS = [
    "Apple Silicon shares one pool of memory between the CPU and the GPU.",
    "The harbour master kept a ledger of every vessel and its cargo.",
    "A vector database finds the nearest neighbours of a query.",
    "Sourdough needs flour, water, salt and a lot of patience.",
    "The mutex must never be held while the interpreter lock is wanted.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
]
QUERIES = ["how do I bake bread at home?", "why does my program deadlock?", "similarity search engine"]


def main() -> None:
    """Print what was loaded, the first values of some vectors, and the best match for each query."""
    console = Console()
    with EmbeddingService("minilm-l6-v2") as service:
        info = service.get_model_info()
        documents = service.embed_array(DOCUMENTS)
        queries = service.embed_array(QUERIES)

    console.print(f"{info['model_name']} on {info['device']}: {info['dimension']} dimensions, {info['precision']}\n")
    vectors = Table("document", "first 4 values")
    for text, vector in zip(DOCUMENTS, documents, strict=True):
        vectors.add_row(text, "  ".join(f"{value:+.4f}" for value in vector[:4]))
    console.print(vectors)

    scores = queries @ documents.T
    matches = Table("query", "nearest document", "cosine")
    for query, row in zip(QUERIES, scores, strict=True):
        best = int(np.argmax(row))
        matches.add_row(query, DOCUMENTS[best], f"{row[best]:.3f}")
    console.print(matches)


if __name__ == "__main__":
    main()
