"""The computation of a model as data, whose sizes depend on the batch and on the length of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Size:
    """A size of an array, factor * batch^batch_power * length^length_power + offset."""

    factor: int
    batch_power: int
    length_power: int
    offset: int = 0

    def at(self, batch: int, length: int) -> int:
        """Return its value."""
        return int(self.factor * batch**self.batch_power * length**self.length_power + self.offset)


BATCH, LENGTH = Size(1, 1, 0), Size(1, 0, 1)


@dataclass(frozen=True)
class TracedArray:
    """An array of a trace, by its name; `dtype` is NumPy's name of its type."""

    name: str
    shape: tuple[int | Size, ...]
    dtype: str


@dataclass(frozen=True)
class Operation:
    """One of MLX's operations, or a named operator.

    Attributes:
        kind: its name, as in "Reshape".
        inputs: the arrays that it reads.
        outputs: those that it makes.
        arguments: its other arguments, in MLX's order.
        attributes: those of a named operator; None for an operation of MLX.
    """

    kind: str
    inputs: tuple[TracedArray, ...]
    outputs: tuple[TracedArray, ...]
    arguments: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Trace:
    """The computation of some outputs: the operations that they need, in the order of their computation."""

    inputs: tuple[TracedArray, ...]
    outputs: tuple[TracedArray, ...]
    constants: Mapping[str, NDArray[Any]]
    operations: tuple[Operation, ...]
