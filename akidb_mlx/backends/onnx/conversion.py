"""A trace as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

from akidb_mlx.backends.onnx import arithmetic, fused, shaping
from akidb_mlx.backends.onnx.arrays import Arrays, Method
from akidb_mlx.backends.onnx.graph import Graph
from akidb_mlx.backends.traced import Operation, Trace
from akidb_mlx.errors import ModelLoadError

# By the kind of an operation.
_METHODS: dict[str, Method] = {
    **arithmetic.METHODS,
    **shaping.METHODS,
    **fused.METHODS,
}


def convert(trace: Trace, inputs: Sequence[str], graph: Graph) -> list[str]:
    """Add the nodes of a trace to a graph, in which its inputs have these names; return the names of its outputs.

    Raises:
        ModelLoadError: there is an operation that has no counterpart.
    """
    arrays = Arrays(trace, inputs, graph)
    for operation in trace.operations:
        if operation.outputs[0] not in arrays:  # else it is part of an operator that was added
            _convert(arrays, operation)
    outputs = [arrays.whole(array) for array in trace.outputs]
    graph.remove_unused(outputs)
    used = {name for node in graph.nodes for name in node.input}
    for name, constant in trace.constants.items():
        if name in used:
            graph.weight(name, constant)
    return outputs


def _convert(arrays: Arrays, operation: Operation) -> None:
    if operation.kind == "Add" and fused.add_and_norm(arrays, operation):
        return
    method = _METHODS.get(operation.kind)
    if method is None:
        raise ModelLoadError(f"the model computes {operation.kind}, which cannot be exported to ONNX")
    method(arrays, operation, operation.outputs[0])
