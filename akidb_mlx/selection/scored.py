"""The base of the selectors that give every label a score of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from akidb_mlx.selection.decision import Decision
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

    def decisions(self, queries: Floats) -> Iterator[Decision]:
        """Yield for each query its label, the scores, and the three largest of them in words."""
        for scores in self.score_lists(queries):
            best = sorted(scores, key=lambda score: -score[1])[:3]
            reasons = [f"{label} has the score {score:.4g}" for label, score in best]
            yield Decision(best[0][0] if best else self.labels[0], scores, reasons)

    def _finite(self, queries: Floats) -> Floats:
        scores = self.decide(queries)
        if not np.isfinite(scores).all():
            row, column = np.argwhere(~np.isfinite(scores))[0].tolist()
            raise not_finite(self.names[column], row)
        return scores
