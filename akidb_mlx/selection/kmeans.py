"""The nearest centroid: each cluster has the label that did best in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from akidb_mlx.selection.decision import Decision
from akidb_mlx.selection.distances import not_finite, squared_distances
from akidb_mlx.selection.json_fields import Fields, Floats, Width


class NearestCentroid:
    """A k-means selector's data, and its choice.

    Args:
        fields: the file's.
        trained: whether it must hold data.
    """

    algorithm: ClassVar[str] = "kmeans"

    def __init__(self, fields: Fields, *, trained: bool) -> None:
        fields.integer("num_clusters")
        width = Width()
        self._centroids = fields.matrix("centroids", width)
        models = fields.strings("cluster_models")
        count = len(self._centroids)
        if len(models) < count:
            raise fields.error("cluster_models", f"has {len(models)} values and centroids has {count}")
        if trained and not count:
            raise fields.error("centroids", "is empty, and trained is true")
        self.dimension: int | None = width.size or None
        self._models = models[:count]
        self._clusters: dict[str, list[int]] = {}
        for index, label in enumerate(self._models):
            self._clusters.setdefault(label, []).append(index)
        self.labels = list(self._clusters)

    def score_lists(self, queries: Floats) -> list[list[tuple[str, float]]]:
        """Return for each query the labels, each with minus the squared distance of its nearest centroid."""
        return [self._scores(squares) for squares in self._distances(queries)]

    def choose(self, queries: Floats) -> list[str]:
        """Return for each query the label of the nearest centroid, of equally near ones the first."""
        return [self._models[np.argmin(squares)] for squares in self._distances(queries)]

    def decisions(self, queries: Floats) -> Iterator[Decision]:
        """Yield for each query its label, the scores, and the three nearest centroids in words."""
        for squares in self._distances(queries):
            nearest = np.argsort(squares, kind="stable")[:3].tolist()
            reasons = [
                f"centroid {index} at distance {np.sqrt(squares[index]):.4g} has the label {self._models[index]}"
                for index in nearest
            ]
            yield Decision(self._models[nearest[0]], self._scores(squares), reasons)

    def _scores(self, squares: Floats) -> list[tuple[str, float]]:
        return [(label, -float(squares[clusters].min())) for label, clusters in self._clusters.items()]

    def _distances(self, queries: Floats) -> Iterator[Floats]:
        for number, query in enumerate(queries):
            distances = squared_distances(query, self._centroids)
            if not np.isfinite(distances).all():
                for label, clusters in self._clusters.items():
                    if not np.isfinite(distances[clusters].min()):
                        raise not_finite(label, number)
            yield distances
