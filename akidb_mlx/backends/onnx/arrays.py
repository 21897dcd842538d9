"""The arrays of a trace as tensors of an ONNX graph.

ONNX broadcasts by itself, so a broadcast array is made only where an operator needs its shape. A product of matrices
takes any leading axes, so those that MLX makes one of for it stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from akidb_mlx.backends.onnx.graph import Graph, Shape, Value
from akidb_mlx.backends.traced import Operation, Size, Trace, TracedArray


class Arrays:
    """The tensors that hold the arrays of a trace, as far as they have been made.

    Attributes:
        graph: the graph of the tensors.
        trace: the trace.
        producers: the operation that makes an array, by the array's name.
        consumers: the operations that read an array, by its name.
    """

    def __init__(self, trace: Trace, inputs: Sequence[str], graph: Graph) -> None:
        """Begin with the inputs, of which `inputs` are the names in the graph, and the constants."""
        self.graph = graph
        self.trace = trace
        self.producers = {array.name: one for one in trace.operations for array in one.outputs}
        self.consumers: dict[str, list[Operation]] = defaultdict(list)
        for one in trace.operations:
            for array in one.inputs:
                self.consumers[array.name].append(one)
        self._values: dict[str, Value] = {}
        for array, name in zip(trace.inputs, inputs, strict=True):
            self._values[array.name] = Value(name, array.shape, array.dtype, array.shape)
        for name, constant in trace.constants.items():
            self._values[name] = Value(name, constant.shape, str(constant.dtype), constant.shape)

    def __contains__(self, array: TracedArray) -> bool:
        """Return whether there is a tensor for an array."""
        return array.name in self._values

    def set(self, array: TracedArray, name: str, held: Shape | None = None) -> None:
        """Take a tensor for an array; `held` is its shape where the array is broadcast from it."""
        self._values[array.name] = Value(name, array.shape, array.dtype, array.shape if held is None else held)

    def set_flattened(self, array: TracedArray, unflattened: Value) -> None:
        """Take a tensor for an array in which its leading axes are one; a node is made if anybody needs that."""
        self._values[array.name] = Value("", array.shape, array.dtype, array.shape, unflattened)

    def set_value(self, array: TracedArray, value: Value) -> None:
        """Take a value for an array."""
        self._values[array.name] = value

    def value(self, array: TracedArray) -> Value:
        """Return the value of an array."""
        return self._values[array.name]

    def plain(self, array: TracedArray) -> Value:
        """Return the value of an array, of which the leading axes may not be left apart."""
        value = self.value(array)
        if value.unflattened is None:
            return value
        given = value.unflattened
        self.set(array, self.graph.one("Reshape", self.whole_value(given), self.target(given.shape, value.shape)))
        return self.value(array)

    def whole(self, array: TracedArray) -> str:
        """Return the name of a tensor with all values of an array."""
        return self.whole_value(self.plain(array))

    def whole_value(self, value: Value) -> str:
        """Return the name of a tensor with all values, also those that are broadcast."""
        if value.held == value.shape:
            return value.name
        return self.graph.shared("Expand", value.name, self.graph.sizes(value.shape))

    def target(self, shape: Shape, target: Shape) -> str:
        """Return the name of the shape of a Reshape: sizes that stay are 0, and one may be left to be found."""
        sizes = [
            0 if shape[i : i + 1] == (size,) and not isinstance(size, int) else size for i, size in enumerate(target)
        ]
        unknown = [i for i, size in enumerate(sizes) if isinstance(size, Size)]
        if len(unknown) == 1:
            sizes[unknown[0]] = -1
        if any(isinstance(size, Size) for size in sizes):
            return self.graph.sizes(target)
        return self.graph.constant(sizes)


# Adds the nodes of an operation that makes one array, or several.
Method = Callable[[Arrays, Operation, TracedArray], None]
