"""Scores of pairs of a query and a document, and documents in the order of their scores for a query."""

from akidb_mlx.reranking.options import RerankOptions
from akidb_mlx.reranking.reports import RerankerInfo
from akidb_mlx.reranking.reranker import Reranker
from akidb_mlx.reranking.scores import ScoreBatch

__all__ = ["RerankOptions", "Reranker", "RerankerInfo", "ScoreBatch"]
