"""Scores of pairs of texts, and documents in the order of their scores for a query.

    from akidb_mlx import Reranker

    with Reranker("ms-marco-minilm-l6-v2") as reranker:
        ranked = reranker.rerank("How many people live in Berlin?", ["Berlin has 3.5 million inhabitants.", "Hello!"])
"""

from akidb_mlx.reranking.options import RerankOptions
from akidb_mlx.reranking.reports import RerankerInfo
from akidb_mlx.reranking.reranker import Reranker
from akidb_mlx.reranking.scores import ScoreBatch

__all__ = ["RerankOptions", "Reranker", "RerankerInfo", "ScoreBatch"]
