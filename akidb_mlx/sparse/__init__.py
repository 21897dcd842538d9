"""Sparse vectors of texts (SPLADE): a weight for each token of a vocabulary, most of them zero."""

from akidb_mlx.reports import TextModelInfo
from akidb_mlx.sparse.embedder import SparseEmbedder, SparseOptions
from akidb_mlx.sparse.vectors import SparseBatch, SparseVector

__all__ = ["SparseBatch", "SparseEmbedder", "SparseOptions", "SparseVector", "TextModelInfo"]
