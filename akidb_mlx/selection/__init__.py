"""Selectors: choose a label for a text by its embedding - a model, a tool or a queue - with KNN, k-means, SVM or MLP.

    from akidb_mlx import EmbeddingService, Router, Selector
    from akidb_mlx.selection import read_records, train

    with EmbeddingService("minilm-l6-v2") as service:
        selector = train(read_records("records.jsonl"), algorithm="svm", service=service)
        selector.save("svm_model.json")
        print(Router(selector, service).route("Who wrote Faust?").label)

Choosing and training a KNN need nothing more. Training the other kinds needs the extra `selection` (scikit-learn),
which `train` imports.
"""

from akidb_mlx.selection.decision import Decision
from akidb_mlx.selection.evaluation import Estimate, Evaluation, Strategy, evaluate
from akidb_mlx.selection.features import CATEGORIES, EmbeddingModel
from akidb_mlx.selection.files import ALGORITHMS, FILE_NAMES
from akidb_mlx.selection.knn import Neighbour
from akidb_mlx.selection.plot import plot_evaluation
from akidb_mlx.selection.records import Record, read_records, split_records
from akidb_mlx.selection.router import Route, Router
from akidb_mlx.selection.selector import Selector
from akidb_mlx.selection.training import train

__all__ = [
    "ALGORITHMS",
    "CATEGORIES",
    "FILE_NAMES",
    "Decision",
    "EmbeddingModel",
    "Estimate",
    "Evaluation",
    "Neighbour",
    "Record",
    "Route",
    "Router",
    "Selector",
    "Strategy",
    "evaluate",
    "plot_evaluation",
    "read_records",
    "split_records",
    "train",
]
