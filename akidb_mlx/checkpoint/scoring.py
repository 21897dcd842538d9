"""The way from the output of a model to the scores of a pair of texts, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from akidb_mlx.checkpoint.pair_template import PairTemplate

# The activations of torch.nn without parameters that scores may have, by the names of their classes.
ACTIVATIONS = ("Identity", "Sigmoid", "Tanh", "ReLU", "Softplus", "LogSigmoid", "Softmax", "LogSoftmax")


@dataclass(frozen=True)
class Scoring:
    """All of a reranker that an embedding model does not have.

    Attributes:
        labels: how many scores a pair has.
        label_names: their names.
        activation: the function of the scores, a name in `ACTIVATIONS`.
        tokens: the tokens whose logits are the score: that of the first, less that of the second if there is one.
            None where the head of the checkpoint computes the scores.
        token_layer: the layer whose rows give the logits of tokens.
        template: makes one text of a pair; None where the tokenizer frames pairs.
        default_prompt: the name of the prompt that a call without one gets.
        source: the files or the rule that say all this, for a person.
    """

    labels: int
    label_names: tuple[str, ...]
    activation: str
    source: str
    tokens: tuple[int, ...] | None = None
    token_layer: str = ""
    template: PairTemplate | None = field(default=None, repr=False)
    default_prompt: str | None = None
