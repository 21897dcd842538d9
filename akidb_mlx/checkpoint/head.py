"""The modules after the encoder, as data: how the vectors of a text's tokens become the vector of the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PoolingMode = Literal["mean", "cls", "last", "max", "mean_sqrt_len_tokens", "weightedmean"]


@dataclass(frozen=True)
class Pooling:
    """The way from token vectors to one vector.

    Attributes:
        modes: one, or several whose vectors are put side by side.
        include_prompt: whether the tokens of the prompt, and the special ones before them, count like the others.
        source: the file or rule that decides it, for a person.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True
    source: str = ""

    def __str__(self) -> str:
        """Return its name, as in "mean" or "cls+mean"."""
        return "+".join(self.modes)


@dataclass(frozen=True)
class Dense:
    """A linear layer and an activation.

    Attributes:
        name: the beginning of its tensors' names.
        outputs: how many values it gives.
        activation: the name of a class in torch.nn.
        bias: whether it has one.
        residual: whether the layer's input is added to its output; through a matrix where their sizes differ.
    """

    name: str
    outputs: int
    activation: str = "Identity"
    bias: bool = True
    residual: bool = False


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm.

    Attributes:
        name: the beginning of its tensors' names.
        eps: what is added to the variance; torch.nn's own where sentence-transformers makes the norm.
        bias: whether it has one.
    """

    name: str
    eps: float = 1e-5
    bias: bool = True


@dataclass(frozen=True)
class Normalize:
    """A division by the vector's length, before other modules."""


HeadModule = Dense | LayerNorm | Normalize


@dataclass(frozen=True)
class Head:
    """All that follows the encoder, except for the length of the final vector, which each call chooses."""

    pooling: Pooling
    modules: tuple[HeadModule, ...] = ()


# The classes of torch.nn that a Dense module may name: those without parameters that map each value by itself.
DENSE_ACTIVATIONS = (
    "CELU",
    "ELU",
    "GELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
)
