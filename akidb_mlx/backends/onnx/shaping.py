"""Operations of a trace that make, move and choose values as nodes of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from akidb_mlx.backends.onnx.arrays import Arrays, Method
from akidb_mlx.backends.traced import Operation, Size, TracedArray
from akidb_mlx.errors import ModelLoadError


def _arange(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    bounds = (arrays.graph.scalar(_integer(bound), output.dtype) for bound in operation.arguments)
    arrays.set(output, arrays.graph.shared("Range", *bounds))


def _alias(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    """Take an array for another that has the same values, or fewer which are broadcast."""
    value = arrays.plain(operation.inputs[0])
    arrays.set(output, value.name, value.held)


def _reshape(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    given = arrays.value(operation.inputs[0])
    if given.unflattened is not None and given.unflattened.shape == output.shape:
        arrays.set_value(output, given.unflattened)
        return
    value = arrays.plain(operation.inputs[0])
    if len(output.shape) == 2 < len(value.shape) and value.shape[-1] == output.shape[-1]:
        arrays.set_flattened(output, value)
        return
    arrays.set(output, arrays.graph.one("Reshape", arrays.whole_value(value), arrays.target(value.shape, output.shape)))


def _expand_dims(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    name = arrays.graph.one(
        "Unsqueeze", arrays.whole(operation.inputs[0]), arrays.graph.constant(list(operation.arguments[0]))
    )
    arrays.set(output, name)


def _squeeze(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    name = arrays.graph.one(
        "Squeeze", arrays.whole(operation.inputs[0]), arrays.graph.constant(list(operation.arguments[0]))
    )
    arrays.set(output, name)


def _transpose(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    given, axes = operation.inputs[0], list(operation.arguments[0])
    constant = arrays.trace.constants.get(given.name)
    if constant is None:
        arrays.set(output, arrays.graph.one("Transpose", arrays.whole(given), perm=axes))
        return
    # A constant is turned once, and not whenever a session is made.
    name = f"{given.name}_transposed_{''.join(map(str, axes))}"
    if name not in arrays.graph.constants:
        arrays.graph.weight(name, np.ascontiguousarray(constant.transpose(axes)))
    arrays.set(output, name)


def _split(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    del output
    axis = operation.arguments[1]
    sizes = [array.shape[axis] for array in operation.outputs]
    names = arrays.graph.add(
        "Split", [arrays.whole(operation.inputs[0]), arrays.graph.sizes(tuple(sizes))], len(sizes), axis=axis
    )
    for array, name in zip(operation.outputs, names, strict=True):
        arrays.set(array, name)


def _slice(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    starts, ends, steps = operation.arguments
    given, graph = operation.inputs[0], arrays.graph
    axes = graph.constant(list(range(len(starts))))
    name = graph.one(
        "Slice", arrays.whole(given), graph.sizes(starts), graph.ends(given.shape, ends), axes, graph.sizes(steps)
    )
    arrays.set(output, name)


def _concatenate(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    names = [arrays.whole(array) for array in operation.inputs]
    arrays.set(output, arrays.graph.add("Concat", names, axis=operation.arguments[0])[0])


def _gather(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    """Take rows of a table; MLX leaves an axis of one where each was."""
    table, indices = operation.inputs
    axes, sizes = operation.arguments
    if axes != (0,) or sizes != (1, *table.shape[1:]):
        raise ModelLoadError("the model gathers other parts than rows of a table, which cannot be exported to ONNX")
    rows = arrays.graph.one("Gather", arrays.whole(table), arrays.whole(indices), axis=0)
    arrays.set(output, arrays.graph.one("Unsqueeze", rows, arrays.graph.constant([len(indices.shape)])))


def _gather_axis(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    values, indices = (arrays.whole(array) for array in operation.inputs)
    arrays.set(output, arrays.graph.one("GatherElements", values, indices, axis=operation.arguments[0]))


def _integer(number: Any) -> int | Size:
    """Return a bound of a range, which MLX tells as a float."""
    return number if isinstance(number, Size) else int(number)


METHODS: dict[str, Method] = {
    "Arange": _arange,
    **dict.fromkeys(("Broadcast", "Full", "Depends", "Contiguous", "Copy", "StopGradient"), _alias),
    **dict.fromkeys(("Reshape", "Flatten", "Unflatten"), _reshape),
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Split": _split,
    "Slice": _slice,
    "Concatenate": _concatenate,
    "Gather": _gather,
    "GatherAxis": _gather_axis,
}
