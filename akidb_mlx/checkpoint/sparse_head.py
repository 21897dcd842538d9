"""The heads of sparse models, as data: the way from a text to a weight for each token of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PoolingStrategy = Literal["max", "sum"]


@dataclass(frozen=True)
class MaskedLayers:
    """The layers of a head for masked words, by the names of their tensors.

    Attributes:
        dense: the linear layer that keeps the size.
        activation: the name of the function after it.
        norm: the layer norm after that.
        eps: its epsilon.
        output: the layer whose weight makes the logits, which may be the table of token vectors.
        output_bias: the name of their bias, or None.
        vocabulary: how many logits there are.
    """

    dense: str
    activation: str
    norm: str
    eps: float
    output: str
    output_bias: str | None
    vocabulary: int


@dataclass(frozen=True)
class Splade:
    """A weight for each token of the vocabulary, log(1 + relu(logit)), pooled over a text's tokens (SPLADE).

    Attributes:
        layers: make the logits.
        strategy: how the tokens' weights become one.
        logarithms: how often log(1 + x) is taken.
    """

    layers: MaskedLayers
    strategy: PoolingStrategy
    logarithms: int


@dataclass(frozen=True)
class TokenWeights:
    """A fixed weight for each token that a text holds; no encoder runs.

    Attributes:
        weight: the name of the tensor (vocabulary,).
        vocabulary: its size.
        folder: holds the tokenizer of such texts.
    """

    weight: str
    vocabulary: int
    folder: Path


SparseHead = Splade | TokenWeights
