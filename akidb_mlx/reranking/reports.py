"""The dictionary in which a reranker reports its model."""

from __future__ import annotations

from typing import Any

from akidb_mlx.reports import RunningModelInfo


class RerankerInfo(RunningModelInfo):
    """A reranker's model and how it runs.

    Attributes:
        labels: the names of its labels; a pair has a score for each.
        activation: the function of the scores, by the name of its class in torch.nn.
        scoring_source: the files or the rule that say how pairs are scored.
        fidelity: the fidelity card beside its weights; None where there is none.
    """

    labels: list[str]
    activation: str
    scoring_source: str
    fidelity: dict[str, Any] | None
