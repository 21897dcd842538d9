"""The k nearest neighbours: each votes for its label by the quality and the speed that were measured for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.selection.decision import Decision
from akidb_mlx.selection.distances import not_finite, squared_distances
from akidb_mlx.selection.json_fields import Fields, Floats, Width

_LEAST_QUALITY, _MISSING_QUALITY = 0.01, 0.5
# Estimated distances held at a time.
_BLOCK = 1 << 22


class Neighbour(NamedTuple):
    """A training example that voted.

    Attributes:
        example: its place in the file.
        label: its label, which it votes for.
        distance: Euclidean, from the query.
        weight: its vote.
    """

    example: int
    label: str
    distance: float
    weight: float


class NearestNeighbours:
    """A KNN selector's data, and its choice.

    Args:
        fields: the file's.
        trained: whether it must hold data.
    """

    algorithm: ClassVar[str] = "knn"

    def __init__(self, fields: Fields, *, trained: bool) -> None:
        self.k = fields.integer("k", minimum=1)
        width = Width()
        self._embeddings = fields.matrix("embeddings", width)
        self._labels = fields.strings("labels")
        count = len(self._embeddings)
        if len(self._labels) != count:
            raise fields.error("labels", f"has {len(self._labels)} values and embeddings has {count}")
        if trained and not count:
            raise fields.error("embeddings", "is empty, and trained is true")
        self.dimension: int | None = width.size or None
        self.labels = sorted(set(self._labels))
        qualities = fields.vector("qualities") if fields.has("qualities") else np.empty(0)
        latencies = fields.integers("latencies") if fields.has("latencies") else np.empty(0, np.int64)
        for key, found in (("qualities", qualities), ("latencies", latencies)):
            if len(found) > count:
                raise fields.error(key, f"has {len(found)} values and embeddings has {count}")
        self._weights = vote_weights(qualities, latencies, count)
        with np.errstate(over="ignore"):
            self._squares = np.einsum("nd,nd->n", self._embeddings, self._embeddings)

    def score_lists(self, queries: Floats) -> list[list[tuple[str, float]]]:
        """Return for each query the labels that got votes with their sums, ordered by label."""
        return [self._count(nearest, number) for number, (nearest, _) in enumerate(self._nearest(queries))]

    def choose(self, queries: Floats) -> list[str]:
        """Return for each query the label with the largest sum; of equal ones the smallest by its code points."""
        return [_best(scores) for scores in self.score_lists(queries)]

    def decisions(self, queries: Floats) -> Iterator[Decision]:
        """Yield for each query its label, the scores, and the votes in words, the nearest first."""
        for number, (nearest, squares) in enumerate(self._nearest(queries)):
            scores = self._count(nearest, number)
            reasons = [
                f"example {one.example} at distance {one.distance:.4g} votes {one.weight:.4g} for {one.label}"
                for one in self._describe(nearest, squares)
            ]
            yield Decision(_best(scores), scores, reasons)

    def neighbours(self, query: Floats) -> list[Neighbour]:
        """Return the training examples that vote, the nearest first."""
        ((nearest, squares),) = self._nearest(query[None])
        return self._describe(nearest, squares)

    def _describe(self, nearest: NDArray[np.intp], squares: Floats) -> list[Neighbour]:
        return [
            Neighbour(int(index), self._labels[index], float(np.sqrt(square)), float(self._weights[index]))
            for index, square in zip(nearest, squares, strict=True)
        ]

    def _count(self, nearest: NDArray[np.intp], number: int) -> list[tuple[str, float]]:
        """Return the sums of the votes for a query, by label.

        They are added up in the order of the neighbours, so that every language rounds them alike.
        """
        votes: dict[str, float] = {}
        for index in nearest.tolist():
            label = self._labels[index]
            votes[label] = votes.get(label, 0.0) + float(self._weights[index])
        scores = sorted(votes.items())
        for label, score in scores:
            if not np.isfinite(score):
                raise not_finite(label, number)
        return scores

    def _nearest(self, queries: Floats) -> Iterator[tuple[NDArray[np.intp], Floats]]:
        """Yield for each query the indices of its neighbours and their squared distances; a lower index goes first.

        Products of matrices estimate all distances. Those that may be among the k smallest, by the bound of the
        estimate's rounding, are computed exactly.
        """
        count, dimension = self._embeddings.shape
        k = min(self.k, count)
        rounding = 8 * (dimension + 8) * np.finfo(np.float64).eps
        longest = np.sqrt(self._squares.max())
        step = max(1, _BLOCK // count)
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.einsum("qd,qd->q", block, block)
                estimates = block @ self._embeddings.T
                estimates *= -2
                estimates += squares[:, None]
                estimates += self._squares
                bounds = rounding * (np.sqrt(squares) + longest) ** 2 + np.finfo(np.float64).tiny
            for number, (query, estimate, bound) in enumerate(zip(block, estimates, bounds, strict=True)):
                limit = np.partition(estimate, k - 1)[k - 1] + 2 * bound
                candidates = np.flatnonzero(~(estimate > limit))  # also where a square overflowed
                distances = squared_distances(query, self._embeddings[candidates])
                order = np.argsort(distances, kind="stable")[:k]
                if not np.isfinite(distances[order[-1]]):  # which of them are nearer is not known
                    raise not_finite(self._labels[candidates[order[-1]]], start + number)
                yield candidates[order], distances[order]


def _best(scores: list[tuple[str, float]]) -> str:
    """Return the label with the largest sum, of equal ones the first."""
    return max(scores, key=lambda score: score[1])[0]


def vote_weights(qualities: Floats, latencies: NDArray[np.int64], count: int) -> Floats:
    """Return the weight of each example's vote: 0.9 of its quality and 0.1 of its speed.

    Args:
        qualities: from 0 to 1, of the first examples; those without count 0.5.
        latencies: in nanoseconds, of the first examples; those without count the middle of the range.
        count: how many examples there are.
    """
    known = np.full(count, _MISSING_QUALITY)
    known[: len(qualities)] = np.maximum(qualities, _LEAST_QUALITY)
    return worth(known, speeds(latencies.astype(np.float64), count))


def speeds(latencies: Floats, count: int) -> Floats:
    """Return the speed of each example: 1 for the fastest, 0 for the slowest, 1 for all where none was timed."""
    if not len(latencies):
        return np.ones(count)
    times = np.full(count, (latencies.min() + latencies.max()) / 2)
    times[: len(latencies)] = latencies
    return speed_of(times, latencies.min(), latencies.max())


def speed_of(latencies: Floats, least: float, most: float) -> Floats:
    """Return the speeds of latencies on a scale from 1 for the least to 0 for the most."""
    return np.asarray(1 - (latencies - least) / max(most - least, 1.0), np.float64)


def worth(qualities: Floats, speeds: Floats) -> Floats:
    """Return 0.9 of qualities and 0.1 of speeds, both from 0 to 1."""
    return 0.9 * qualities + 0.1 * speeds
