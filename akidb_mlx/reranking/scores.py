"""The last steps to a caller's scores: the activation, the best window of a document, a check of every row."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from akidb_mlx.errors import InferenceError
from akidb_mlx.vectors import Vectors


@dataclass(frozen=True, eq=False, repr=False)
class ScoreBatch:
    """The result of one call. Batches compare and hash by identity.

    Attributes:
        scores: float32 in the order of the pairs: (pairs,) for one label, (pairs, labels) for several.
        token_counts: tokens that the model read of each pair, its prompt and special tokens included.
        truncated: for each pair, whether tokens were cut off.
        model: name of the model.
    """

    scores: Vectors
    token_counts: list[int]
    truncated: list[bool]
    model: str

    def __repr__(self) -> str:
        count = len(self.token_counts)
        return (
            f"<ScoreBatch of {count} pair{'' if count == 1 else 's'} by {reprlib.repr(self.model)}: "
            f"{sum(self.token_counts)} tokens, {sum(self.truncated)} truncated>"
        )


def finish_scores(logits: Vectors, windows: Sequence[int], activation: str, first: int) -> Vectors:
    """Apply the activation, and take the best window of each document.

    Args:
        logits: (windows of all pairs, labels), as the model computed them.
        windows: for each pair in order, how many windows it has.
        activation: a name in `ACTIVATIONS`.
        first: the index, in the caller's list, of the first of the pairs.

    Returns:
        (pairs, labels) float32.

    Raises:
        InferenceError: a score is not finite; the pair's index is named.
    """
    with np.errstate(all="ignore"):
        scores = _FUNCTIONS[activation](logits.astype(np.float64)).astype(np.float32)
    starts = np.cumsum([0, *windows[:-1]])
    if len(scores) != len(windows):
        scores = np.maximum.reduceat(scores, starts)
    sound = np.isfinite(scores).all(axis=1)
    if not sound.all():
        index = first + int(np.argmin(sound))
        raise InferenceError(
            f"the model's score for pair {index} is not finite; the weights may be damaged, or the precision too "
            "narrow for this pair (try precision float32)",
            index,
        )
    return scores


def _log_softmax(x: Vectors) -> Vectors:
    return x - np.logaddexp.reduce(x, axis=1, keepdims=True)


# The activations of `ACTIVATIONS`, as torch.nn computes them with its own defaults.
_FUNCTIONS: dict[str, Callable[[Vectors], Vectors]] = {
    "Identity": lambda x: x,
    "Sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Softplus": lambda x: np.logaddexp(0, x),
    "LogSigmoid": lambda x: -np.logaddexp(0, -x),
    "Softmax": lambda x: np.exp(_log_softmax(x)),
    "LogSoftmax": _log_softmax,
}
