"""The modules after the encoder, as data: how the vectors of a text's tokens become the vector of the text."""

from __future__ import annotations

from dataclasses import dataclass

from akidb_mlx.checkpoint.architectures.architecture import PoolingMode


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
        activation: the name of a class in torch.nn.
        residual: whether the layer's input is added to its output; through a matrix where their sizes differ.
    """

    name: str
    activation: str
    residual: bool = False


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm; `name` is the beginning of its tensors' names."""

    name: str


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
