"""An ONNX graph in the making: nodes, constants, and shapes with sizes that depend on the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.traced import BATCH, LENGTH, Size

if TYPE_CHECKING:
    from onnx import NodeProto

Shape = tuple[int | Size, ...]

# The version of ONNX's operators: the first with Attention, RotaryEmbedding and RMSNormalization.
OPSET = 23
# The end of a slice that goes to the end of an axis.
_TO_THE_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: its name in the graph.
        shape: the shape that the traced array has.
        dtype: NumPy's name of its type.
        held: the shape that the tensor has in the graph, from which that of the array is broadcast.
        unflattened: the tensor whose leading axes are one axis here, while nobody needs this one itself.
    """

    name: str
    shape: Shape
    dtype: str
    held: Shape
    unflattened: Value | None = None


class Graph:
    """Collects the nodes and constants of a graph.

    Attributes:
        nodes: in the order of their computation.
        constants: by name.
    """

    def __init__(self, ids: str) -> None:
        """Begin a graph whose batch and length are those of its input `ids` (batch, length)."""
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._ids = ids
        self._made: dict[Any, str] = {}

    def add(
        self, operator: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node, and return the names of its outputs."""
        from onnx import helper

        names = [f"{operator.lower()}_{len(self.nodes)}_{number}" for number in range(outputs)]
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, names, name, domain=domain or None, **attributes))
        return names

    def one(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return its name."""
        return self.add(operator, inputs, **attributes)[0]

    def shared(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Return the output of a node, which is made once for all who ask for the same."""
        key = (operator, inputs, tuple(attributes.items()))
        if key not in self._made:
            self._made[key] = self.one(operator, *inputs, **attributes)
        return self._made[key]

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a small constant."""
        array = np.array(value, dtype)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            self._made[key] = self.weight(f"constant_{len(self.constants)}", array)
        return self._made[key]

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant under a name of its own."""
        self.constants[name] = array
        return name

    def sizes(self, shape: Shape) -> str:
        """Return the name of a shape as a tensor (n,)."""
        if all(isinstance(size, int) for size in shape):
            return self.constant(list(shape))
        return self.shared("Concat", *(self._size(size) for size in shape), axis=0)

    def scalar(self, size: int | Size, dtype: str) -> str:
        """Return the name of a size as a scalar of a type."""
        if isinstance(size, int):
            return self.constant(size, dtype)
        return self.shared("Cast", self.shared("Squeeze", self._size(size)), to=onnx_type(dtype))

    def ends(self, shape: Shape, ends: Shape) -> str:
        """Return the name of the ends of slices as a tensor (n,)."""
        return self.sizes(tuple(_TO_THE_END if end == size else end for size, end in zip(shape, ends, strict=True)))

    def remove_unused(self, outputs: Sequence[str]) -> None:
        """Remove the nodes that the outputs do not depend on."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.output):
                wanted.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in wanted}

    def _size(self, size: int | Size) -> str:
        """Return the name of one size as a tensor (1,)."""
        if isinstance(size, int):
            return self.constant([size])
        if size in (BATCH, LENGTH):
            start = 0 if size == BATCH else 1
            return self.shared("Shape", self._ids, start=start, end=start + 1)
        name = self.constant([size.factor])
        for part, power in ((BATCH, size.batch_power), (LENGTH, size.length_power)):
            if power:
                name = self.shared("Mul", name, self._size(part))
        return self.shared("Add", name, self.constant([size.offset])) if size.offset else name


def onnx_type(dtype: str) -> int:
    """Return ONNX's number of a type."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
