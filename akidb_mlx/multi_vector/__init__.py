"""A vector for each token of a text, and the scores of documents by them (ColBERT)."""

from akidb_mlx.multi_vector.embedder import MultiVectorEmbedder, MultiVectorOptions
from akidb_mlx.multi_vector.vectors import MultiVectorBatch
from akidb_mlx.reports import TextModelInfo

__all__ = ["MultiVectorBatch", "MultiVectorEmbedder", "MultiVectorOptions", "TextModelInfo"]
