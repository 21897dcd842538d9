"""Arithmetic of a trace as nodes of an ONNX graph: operations that map values one by one, products and sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from akidb_mlx.backends.onnx.arrays import Arrays, Method
from akidb_mlx.backends.onnx.graph import Shape, Value, onnx_type
from akidb_mlx.backends.traced import Operation, TracedArray
from akidb_mlx.errors import ModelLoadError

# Operators that map values one by one, with ONNX's names.
_ELEMENTWISE = {
    **{name: name for name in ("Add", "Less", "Greater", "Equal", "Abs", "Exp", "Log")},
    **{name: name for name in ("Sin", "Cos", "Tanh", "Sigmoid", "Erf", "Floor", "Sign")},
    "LessEqual": "LessOrEqual",
    "GreaterEqual": "GreaterOrEqual",
    "Multiply": "Mul",
    "Subtract": "Sub",
    "Divide": "Div",
    "Maximum": "Max",
    "Minimum": "Min",
    "Power": "Pow",
    "Negative": "Neg",
    "Select": "Where",
    "LogicalNot": "Not",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "FloorDivide": "Div",  # of integers that are not negative
}
_REDUCTIONS = {2: "ReduceSum", 3: "ReduceProd", 4: "ReduceMin", 5: "ReduceMax"}
_SUM = 2
_BITWISE = {0: "And", 1: "Or"}


def _elementwise(operator: str, arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    values = [arrays.plain(array) for array in operation.inputs]
    name = arrays.graph.one(operator, *(value.name for value in values))
    arrays.set(output, name, _broadcast([value.held for value in values]))


def _not_equal(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    _elementwise("Equal", arrays, operation, output)
    value = arrays.value(output)
    arrays.set(output, arrays.graph.one("Not", value.name), value.held)


def _bitwise(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    number = operation.arguments[0]
    if output.dtype != "bool" or number not in _BITWISE:
        raise ModelLoadError("the model computes with bits, which cannot be exported to ONNX")
    _elementwise(_BITWISE[number], arrays, operation, output)


def _map(arrays: Arrays, output: TracedArray, value: Value, *operators: str) -> None:
    """Apply operators of one input to a value, one after the other."""
    name = value.name
    for operator in operators:
        name = arrays.graph.one(operator, name)
    arrays.set(output, name, value.held)


def _square(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    value = arrays.plain(operation.inputs[0])
    arrays.set(output, arrays.graph.one("Mul", value.name, value.name), value.held)


def _sqrt(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    inverse = ["Reciprocal"] if operation.arguments[0] else []
    _map(arrays, output, arrays.plain(operation.inputs[0]), "Sqrt", *inverse)


def _log1p(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    value = arrays.plain(operation.inputs[0])
    arrays.set(output, arrays.graph.one("Log", _plus(arrays, value.name, 1.0, value.dtype)), value.held)


def _expm1(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    value = arrays.plain(operation.inputs[0])
    arrays.set(output, _plus(arrays, arrays.graph.one("Exp", value.name), -1.0, value.dtype), value.held)


def _log_add_exp(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    """Compute max(a, b) + log(1 + exp(-|a - b|))."""
    first, second = (arrays.plain(array) for array in operation.inputs)
    graph, add = arrays.graph, arrays.graph.one
    distance = add("Neg", add("Abs", add("Sub", first.name, second.name)))
    small = add("Log", _plus(arrays, add("Exp", distance), 1.0, first.dtype))
    name = add("Add", graph.one("Max", first.name, second.name), small)
    arrays.set(output, name, _broadcast([first.held, second.held]))


def _plus(arrays: Arrays, name: str, number: float, dtype: str) -> str:
    return arrays.graph.one("Add", name, arrays.graph.constant(number, dtype))


def _cast(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    value = arrays.plain(operation.inputs[0])
    arrays.set(output, arrays.graph.shared("Cast", value.name, to=onnx_type(output.dtype)), value.held)


def _matmul(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    given, factor = operation.inputs
    left = arrays.value(given)
    if left.unflattened is not None and len(factor.shape) == 2:
        wide = left.unflattened
        shape = (*wide.shape[:-1], output.shape[-1])
        name = arrays.graph.one("MatMul", arrays.whole_value(wide), arrays.whole(factor))
        arrays.set_flattened(output, Value(name, shape, output.dtype, shape))
        return
    arrays.set(output, arrays.graph.one("MatMul", arrays.whole(given), arrays.whole(factor)))


def _reduce(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    number, axes = operation.arguments
    if number not in _REDUCTIONS:
        raise ModelLoadError("the model reduces an array in a way that cannot be exported to ONNX")
    given = arrays.whole(operation.inputs[0])
    arrays.set(output, arrays.graph.one(_REDUCTIONS[number], given, arrays.graph.constant(list(axes)), keepdims=1))


def _scan(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    number, axis, reverse, inclusive = operation.arguments
    if number != _SUM:
        raise ModelLoadError("the model accumulates in a way that cannot be exported to ONNX")
    name = arrays.graph.one(
        "CumSum",
        arrays.whole(operation.inputs[0]),
        arrays.graph.constant(axis),
        reverse=int(reverse),
        exclusive=int(not inclusive),
    )
    arrays.set(output, name)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that arrays of these shapes are broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


METHODS: dict[str, Method] = {
    **{kind: partial(_elementwise, operator) for kind, operator in _ELEMENTWISE.items()},
    "NotEqual": _not_equal,
    "BitwiseBinary": _bitwise,
    "Square": _square,
    "Sqrt": _sqrt,
    "Log1p": _log1p,
    "Expm1": _expm1,
    "LogAddExp": _log_add_exp,
    "AsType": _cast,
    "Matmul": _matmul,
    "Reduce": _reduce,
    "Scan": _scan,
}
