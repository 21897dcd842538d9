"""The dictionary in which a reranker reports its model."""

from __future__ import annotations

from akidb_mlx.reports import RunningModelInfo


class RerankerInfo(RunningModelInfo):
    """A reranker's model and how it runs.

    Attributes:
        labels: the names of its labels; a pair has a score for each.
        activation: the function of the scores, by the name of its class in torch.nn.
        scoring_source: the files or the rule that say how pairs are scored.
    """

    labels: list[str]
    activation: str
    scoring_source: str
