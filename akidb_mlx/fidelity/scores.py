"""The measuring of a reranker's fidelity: its scores of pairs of texts are compared with its original's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.fidelity.card import RerankerCard, ScoreFigures
from akidb_mlx.fidelity.figures import Numbers, spearman
from akidb_mlx.fidelity.measuring import describe
from akidb_mlx.fidelity.texts import TextSet
from akidb_mlx.reports import RunningModelInfo
from akidb_mlx.vectors import Vectors

# A query is followed by so many documents, the texts after it, which are of its language where texts are in that order.
_DOCUMENTS = 10
# Pairs that are scored before the time is taken.
_WARM_UP = 4


class Scorer(Protocol):
    """A reranker."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """Return the scores of pairs, (pairs,) or (pairs, labels)."""

    def get_model_info(self) -> RunningModelInfo:
        """Report the model."""


@dataclass(frozen=True, eq=False)
class MeasuredScores:
    """A reranker's scores.

    Attributes:
        info: the model.
        rankings: the scores, (queries and labels, documents).
        pairs: how many pairs were scored.
        seconds: how long it took.
    """

    info: RunningModelInfo
    rankings: Numbers
    pairs: int
    seconds: float


def measure_scores(reranker: Scorer, texts: TextSet) -> MeasuredScores:
    """Let a reranker score texts against each other, and take the time.

    Raises:
        InvalidInputError: there are fewer than three texts.
        AkidbMlxError: the model cannot score them.
    """
    given = texts.texts
    documents = min(_DOCUMENTS, len(given) - 1)
    if documents < 2:
        raise InvalidInputError(f"{texts.name} holds {len(given)} texts, at least 3 are needed")
    pairs = [
        (given[query], given[(query + step) % len(given)])
        for query in range(0, len(given), documents)
        for step in range(1, documents + 1)
    ]
    reranker.scores(pairs[:_WARM_UP])
    began = time.perf_counter()
    scores = reranker.scores(pairs)
    seconds = time.perf_counter() - began
    of_labels = scores.astype(np.float64).reshape(-1, documents, scores.size // len(pairs))
    rankings = np.swapaxes(of_labels, 1, 2).reshape(-1, documents)
    return MeasuredScores(reranker.get_model_info(), rankings, len(pairs), seconds)


def make_reranker_card(model: MeasuredScores, original: MeasuredScores, texts: TextSet) -> RerankerCard:
    """Compare a reranker with its original.

    Args:
        model: the model, measured as it is used.
        original: the original, measured in float32 on the same texts.
        texts: the texts.

    Raises:
        InvalidInputError: the original is not in float32, or the two have other labels.
    """
    if model.rankings.shape != original.rankings.shape:
        raise InvalidInputError(
            f"{model.info['model_name']} and {original.info['model_name']} have not the same number of labels: the one "
            "is no conversion of the other"
        )
    differences = np.abs(model.rankings - original.rankings)
    orders = [spearman(*pair) for pair in zip(model.rankings, original.rankings, strict=True)]
    return RerankerCard(
        **describe(model.info, original.info, texts, None),
        scores=ScoreFigures(
            rankings=len(differences),
            documents=differences.shape[1],
            mean_difference=float(differences.mean()),
            worst_difference=float(differences.max()),
            order=float(np.mean(orders)),
            same_best=float((model.rankings.argmax(axis=1) == original.rankings.argmax(axis=1)).mean()),
        ),
        pairs_per_second=model.pairs / model.seconds,
    )
