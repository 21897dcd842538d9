"""The base of the selectors that give every label a score of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from akidb_mlx.selection.distances import not_finite
from akidb_mlx.selection.json_fields import Floats


class ScoredLabels(ABC):
    """Chooses the label with the largest score, of equal ones the first.

    Attributes:
        names: the label of each score.
    """

    names: list[str]

    @property
    def labels(self) -> list[str]:
        """Return the labels, each once."""
        return list(dict.fromkeys(self.names))

    @abstractmethod
    def decide(self, queries: Floats) -> Floats:
        """Return the scores, (queries, names)."""

    def score_lists(self, queries: Floats) -> list[list[tuple[str, float]]]:
        """Return for each query the labels with their scores, in the file's order."""
        return [list(zip(self.names, scores, strict=True)) for scores in self._finite(queries).tolist()]

    def choose(self, queries: Floats) -> list[str]:
        """Return for each query the label with the largest score."""
        return [self.names[best] for best in np.argmax(self._finite(queries), axis=1).tolist()]

    def explain(self, query: Floats) -> list[str]:
        """Return the three largest scores in words."""
        (scores,) = self.score_lists(query[None])
        best = sorted(scores, key=lambda score: -score[1])[:3]
        return [f"{label} has the score {score:.4g}" for label, score in best]

    def _finite(self, queries: Floats) -> Floats:
        scores = self.decide(queries)
        if not np.isfinite(scores).all():
            row, column = np.argwhere(~np.isfinite(scores))[0].tolist()
            raise not_finite(self.names[column], row)
        return scores
