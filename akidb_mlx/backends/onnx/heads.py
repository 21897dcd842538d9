"""The heads of an array (batch, heads, length, head size) side by side, (batch, length, heads * head size).

Products write this layout, and ONNX Runtime's attention reads it. An array is therefore followed back to the product
that it comes from, and the transpositions in between are left out of the graph.
"""

from __future__ import annotations

from typing import Any

from akidb_mlx.backends.onnx.arrays import Arrays
from akidb_mlx.backends.traced import LENGTH, Operation, TracedArray

_HEAD_AXIS = 1
_TURN = (0, 2, 1, 3)


def heads_side_by_side(arrays: Arrays, array: TracedArray) -> str:
    """Return the name of the heads of an array side by side."""
    batch, heads, length, size = array.shape
    assert isinstance(heads, int) and isinstance(size, int)
    if name := _of_product(arrays, array, 0, heads):
        return name
    turned = arrays.graph.one("Transpose", arrays.whole(array), perm=_TURN)
    apart = (batch, length, heads, size)
    return arrays.graph.one("Reshape", turned, arrays.target(apart, (batch, length, heads * size)))


def rotate(arrays: Arrays, rotation: Operation, name: str, heads: int = 0) -> str:
    """Rotate a tensor as a rotation of the trace does.

    Args:
        arrays: the tensors.
        rotation: the operation.
        name: the tensor, (batch, heads, length, head size), or with its heads side by side.
        heads: their number where they are.
    """
    values, *table = rotation.inputs
    half = table[0].shape[-1]
    assert isinstance(half, int)
    attributes: dict[str, Any] = {"num_heads": heads} if heads else {}
    if 2 * half != values.shape[-1]:
        attributes["rotary_embedding_dim"] = 2 * half
    return arrays.graph.shared("RotaryEmbedding", name, *map(arrays.whole, table), _positions(arrays), **attributes)


def _positions(arrays: Arrays) -> str:
    """Return the name of the position of every token, (batch, length) int64."""
    graph = arrays.graph
    positions = graph.shared("Range", *(graph.scalar(number, "int64") for number in (0, LENGTH, 1)))
    return graph.shared("Expand", positions, graph.sizes(arrays.trace.inputs[0].shape))


def _of_product(arrays: Arrays, array: TracedArray, first: int, last: int) -> str:
    """Return the name of the heads from `first` to before `last` side by side; "" if no product holds them so."""
    producer = arrays.producers.get(array.name)
    if producer is None:
        return ""
    if producer.kind == "Split" and producer.arguments[1] == _HEAD_AXIS:
        parts = producer.outputs[: producer.outputs.index(array)]
        before = sum(part.shape[_HEAD_AXIS] for part in parts)  # type: ignore[misc]
        return _of_product(arrays, producer.inputs[0], before + first, before + last)
    if producer.kind == "RotaryEmbedding":
        name = _of_product(arrays, producer.inputs[0], first, last)
        return name and rotate(arrays, producer, name, last - first)
    if producer.kind == "Transpose" and producer.arguments[0] == _TURN:
        return _of_turned(arrays, producer.inputs[0], first, last)
    return ""


def _of_turned(arrays: Arrays, apart: TracedArray, first: int, last: int) -> str:
    """Return the name of some heads of (batch, length, heads, head size) side by side; see `_of_product`."""
    producer = arrays.producers.get(apart.name)
    if producer is None or producer.kind not in ("Reshape", "Unflatten"):
        return ""
    joined = arrays.plain(producer.inputs[0])
    if len(joined.shape) != 3:
        return ""
    heads, size = apart.shape[2:]
    assert isinstance(heads, int) and isinstance(size, int)
    name = arrays.whole_value(joined)
    if (first, last) == (0, heads):
        return name
    bounds = (arrays.graph.constant([value]) for value in (first * size, last * size, 2))
    return arrays.graph.shared("Slice", name, *bounds)
