"""The operations of a traced model as nodes of an ONNX graph.

ONNX broadcasts by itself, so a broadcast array is made only where an operator needs its shape. A product of matrices
takes any leading axes, so those that MLX makes one of for it stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from akidb_mlx.backends.onnx.graph import Graph, Shape, Value, onnx_type
from akidb_mlx.backends.traced import LENGTH, Operation, Size, Trace, TracedArray
from akidb_mlx.errors import ModelLoadError

_MICROSOFT = "com.microsoft"
# Added to a score that is masked; not -inf, so that a row which sees nothing stays a number.
_MASKED = -1e9

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
# ONNX Runtime's operators for a sum and the norm of it.
_SKIP_NORMS = {
    "LayerNormalization": "SkipLayerNormalization",
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
}
_REDUCTIONS = {2: "ReduceSum", 3: "ReduceProd", 4: "ReduceMin", 5: "ReduceMax"}
_SUM = 2
_BITWISE = {0: "And", 1: "Or"}


class Converter:
    """Writes a trace into a graph.

    Attributes:
        graph: the graph.
    """

    def __init__(self, trace: Trace, inputs: Sequence[str], graph: Graph) -> None:
        """Prepare to convert; `inputs` are the names that the trace's inputs have in the graph."""
        self.graph = graph
        self._trace = trace
        self._values: dict[str, Value] = {}
        for array, name in zip(trace.inputs, inputs, strict=True):
            self._values[array.name] = Value(name, array.shape, array.dtype, array.shape)
        for name, constant in trace.constants.items():
            self._values[name] = Value(name, constant.shape, str(constant.dtype), constant.shape)
        self._producers = {array.name: one for one in trace.operations for array in one.outputs}
        self._consumers: dict[str, list[Operation]] = defaultdict(list)
        for one in trace.operations:
            for array in one.inputs:
                self._consumers[array.name].append(one)
        self._splits: dict[tuple[str, str, tuple[Any, ...]], list[str]] = {}

    def convert(self) -> list[str]:
        """Add the nodes of all operations, and return the names of the outputs.

        Raises:
            ModelLoadError: there is an operation that has no counterpart.
        """
        for operation in self._trace.operations:
            if operation.outputs[0].name not in self._values:  # else it is part of an operator that was added
                self._convert(operation)
        outputs = [self._whole(array) for array in self._trace.outputs]
        self.graph.remove_unused(outputs)
        used = {name for node in self.graph.nodes for name in node.input}
        for name, constant in self._trace.constants.items():
            if name in used:
                self.graph.weight(name, constant)
        return outputs

    def _convert(self, operation: Operation) -> None:
        kind, output = operation.kind, operation.outputs[0]
        if kind == "Add" and self._add_and_norm(operation):
            return
        if kind in _ELEMENTWISE:
            self._elementwise(_ELEMENTWISE[kind], operation)
        elif (method := _METHODS.get(kind)) is not None:
            method(self, operation, output)
        else:
            raise ModelLoadError(f"the model computes {kind}, which cannot be exported to ONNX")

    def _set(self, array: TracedArray, name: str, held: Shape | None = None, unflattened: Value | None = None) -> None:
        self._values[array.name] = Value(
            name, array.shape, array.dtype, array.shape if held is None else held, unflattened
        )

    def _value(self, array: TracedArray) -> Value:
        return self._values[array.name]

    def _plain(self, array: TracedArray) -> Value:
        """Return the value of an array, of which the leading axes may not be left apart."""
        value = self._value(array)
        if value.unflattened is None:
            return value
        name = self.graph.one(
            "Reshape", self._whole_value(value.unflattened), self._target(value.unflattened.shape, value.shape)
        )
        self._set(array, name)
        return self._value(array)

    def _whole(self, array: TracedArray) -> str:
        """Return the name of a tensor with all values of an array."""
        return self._whole_value(self._plain(array))

    def _whole_value(self, value: Value) -> str:
        if value.held == value.shape:
            return value.name
        return self.graph.shared("Expand", value.name, self.graph.sizes(value.shape))

    def _target(self, shape: Shape, target: Shape) -> str:
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

    def _elementwise(self, operator: str, operation: Operation) -> None:
        values = [self._plain(array) for array in operation.inputs]
        name = self.graph.one(operator, *(value.name for value in values))
        self._set(operation.outputs[0], name, _broadcast([value.held for value in values]))

    def _add_and_norm(self, operation: Operation) -> bool:
        """Add the operator of ONNX Runtime for a sum of token vectors and its norm; return whether there is a norm."""
        output = operation.outputs[0]
        consumers = self._consumers[output.name]
        norm = next((one for one in consumers if one.kind in _SKIP_NORMS and one.inputs[0] == output), None)
        values = [self._plain(array) for array in operation.inputs]
        if norm is None or len(output.shape) != 3 or any(value.held != output.shape for value in values):
            return False
        assert norm.attributes is not None
        weight, *bias = (self._whole(array) for array in norm.inputs[1:])
        operator = _SKIP_NORMS[norm.kind]
        inputs = [value.name for value in values] + [weight, *(bias or [""] * (operator == "SkipLayerNormalization"))]
        wanted = len(consumers) > 1 or output in self._trace.outputs
        names = self.graph.add(operator, inputs, 4 if wanted else 1, _MICROSOFT, **norm.attributes)
        self._set(norm.outputs[0], names[0])
        self._set(output, names[-1])
        return True

    def _not_equal(self, operation: Operation, output: TracedArray) -> None:
        self._elementwise("Equal", operation)
        value = self._value(output)
        self._set(output, self.graph.one("Not", value.name), value.held)

    def _bitwise(self, operation: Operation, output: TracedArray) -> None:
        number = operation.arguments[0]
        if output.dtype != "bool" or number not in _BITWISE:
            raise ModelLoadError("the model computes with bits, which cannot be exported to ONNX")
        self._elementwise(_BITWISE[number], operation)

    def _map(self, output: TracedArray, value: Value, *operators: str) -> None:
        """Apply operators of one input to a value, one after the other."""
        name = value.name
        for operator in operators:
            name = self.graph.one(operator, name)
        self._set(output, name, value.held)

    def _square(self, operation: Operation, output: TracedArray) -> None:
        value = self._plain(operation.inputs[0])
        self._set(output, self.graph.one("Mul", value.name, value.name), value.held)

    def _sqrt(self, operation: Operation, output: TracedArray) -> None:
        inverse = ["Reciprocal"] if operation.arguments[0] else []
        self._map(output, self._plain(operation.inputs[0]), "Sqrt", *inverse)

    def _log1p(self, operation: Operation, output: TracedArray) -> None:
        value = self._plain(operation.inputs[0])
        self._set(output, self.graph.one("Log", self._plus(value.name, 1.0, value.dtype)), value.held)

    def _expm1(self, operation: Operation, output: TracedArray) -> None:
        value = self._plain(operation.inputs[0])
        self._set(output, self._plus(self.graph.one("Exp", value.name), -1.0, value.dtype), value.held)

    def _log_add_exp(self, operation: Operation, output: TracedArray) -> None:
        """Compute max(a, b) + log(1 + exp(-|a - b|))."""
        first, second = (self._plain(array) for array in operation.inputs)
        graph, add = self.graph, self.graph.one
        distance = add("Neg", add("Abs", add("Sub", first.name, second.name)))
        small = add("Log", self._plus(add("Exp", distance), 1.0, first.dtype))
        name = add("Add", graph.one("Max", first.name, second.name), small)
        self._set(output, name, _broadcast([first.held, second.held]))

    def _plus(self, name: str, number: float, dtype: str) -> str:
        return self.graph.one("Add", name, self.graph.constant(number, dtype))

    def _cast(self, operation: Operation, output: TracedArray) -> None:
        value = self._plain(operation.inputs[0])
        self._set(output, self.graph.shared("Cast", value.name, to=onnx_type(output.dtype)), value.held)

    def _arange(self, operation: Operation, output: TracedArray) -> None:
        bounds = (self.graph.scalar(_integer(bound), output.dtype) for bound in operation.arguments)
        self._set(output, self.graph.shared("Range", *bounds))

    def _alias(self, operation: Operation, output: TracedArray) -> None:
        """Take an array for another that has the same values, or fewer which are broadcast."""
        value = self._plain(operation.inputs[0])
        self._set(output, value.name, value.held)

    def _reshape(self, operation: Operation, output: TracedArray) -> None:
        given = self._value(operation.inputs[0])
        if given.unflattened is not None and given.unflattened.shape == output.shape:
            self._values[output.name] = given.unflattened
            return
        value = self._plain(operation.inputs[0])
        if len(output.shape) == 2 < len(value.shape) and value.shape[-1] == output.shape[-1]:
            self._set(output, "", unflattened=value)
            return
        self._set(output, self.graph.one("Reshape", self._whole_value(value), self._target(value.shape, output.shape)))

    def _expand_dims(self, operation: Operation, output: TracedArray) -> None:
        name = self.graph.one("Unsqueeze", self._whole(operation.inputs[0]), self._integers(operation.arguments[0]))
        self._set(output, name)

    def _squeeze(self, operation: Operation, output: TracedArray) -> None:
        name = self.graph.one("Squeeze", self._whole(operation.inputs[0]), self._integers(operation.arguments[0]))
        self._set(output, name)

    def _integers(self, numbers: Sequence[int]) -> str:
        return self.graph.constant(list(numbers))

    def _transpose(self, operation: Operation, output: TracedArray) -> None:
        given, axes = operation.inputs[0], list(operation.arguments[0])
        constant = self._trace.constants.get(given.name)
        if constant is None:
            self._set(output, self.graph.one("Transpose", self._whole(given), perm=axes))
            return
        # A constant is turned once, and not whenever a session is made.
        name = f"{given.name}_transposed_{''.join(map(str, axes))}"
        if name not in self.graph.constants:
            self.graph.weight(name, np.ascontiguousarray(constant.transpose(axes)))
        self._set(output, name)

    def _split(self, operation: Operation, output: TracedArray) -> None:
        del output
        axis = operation.arguments[1]
        sizes = [array.shape[axis] for array in operation.outputs]
        names = self.graph.add(
            "Split", [self._whole(operation.inputs[0]), self.graph.sizes(tuple(sizes))], len(sizes), axis=axis
        )
        for array, name in zip(operation.outputs, names, strict=True):
            self._set(array, name)

    def _slice(self, operation: Operation, output: TracedArray) -> None:
        starts, ends, steps = operation.arguments
        given, graph = operation.inputs[0], self.graph
        axes = graph.constant(list(range(len(starts))))
        name = graph.one(
            "Slice", self._whole(given), graph.sizes(starts), graph.ends(given.shape, ends), axes, graph.sizes(steps)
        )
        self._set(output, name)

    def _concatenate(self, operation: Operation, output: TracedArray) -> None:
        names = [self._whole(array) for array in operation.inputs]
        self._set(output, self.graph.add("Concat", names, axis=operation.arguments[0])[0])

    def _gather(self, operation: Operation, output: TracedArray) -> None:
        """Take rows of a table; MLX leaves an axis of one where each was."""
        table, indices = operation.inputs
        axes, sizes = operation.arguments
        if axes != (0,) or sizes != (1, *table.shape[1:]):
            raise ModelLoadError("the model gathers other parts than rows of a table, which cannot be exported to ONNX")
        rows = self.graph.one("Gather", self._whole(table), self._whole(indices), axis=0)
        self._set(output, self.graph.one("Unsqueeze", rows, self._integers([len(indices.shape)])))

    def _gather_axis(self, operation: Operation, output: TracedArray) -> None:
        values, indices = (self._whole(array) for array in operation.inputs)
        self._set(output, self.graph.one("GatherElements", values, indices, axis=operation.arguments[0]))

    def _matmul(self, operation: Operation, output: TracedArray) -> None:
        given, factor = operation.inputs
        left = self._value(given)
        if left.unflattened is not None and len(factor.shape) == 2:
            wide = left.unflattened
            shape = (*wide.shape[:-1], output.shape[-1])
            name = self.graph.one("MatMul", self._whole_value(wide), self._whole(factor))
            self._set(output, "", unflattened=Value(name, shape, output.dtype, shape))
            return
        self._set(output, self.graph.one("MatMul", self._whole(given), self._whole(factor)))

    def _reduce(self, operation: Operation, output: TracedArray) -> None:
        number, axes = operation.arguments
        if number not in _REDUCTIONS:
            raise ModelLoadError("the model reduces an array in a way that cannot be exported to ONNX")
        given = self._whole(operation.inputs[0])
        self._set(output, self.graph.one(_REDUCTIONS[number], given, self._integers(axes), keepdims=1))

    def _scan(self, operation: Operation, output: TracedArray) -> None:
        number, axis, reverse, inclusive = operation.arguments
        if number != _SUM:
            raise ModelLoadError("the model accumulates in a way that cannot be exported to ONNX")
        name = self.graph.one(
            "CumSum",
            self._whole(operation.inputs[0]),
            self.graph.constant(axis),
            reverse=int(reverse),
            exclusive=int(not inclusive),
        )
        self._set(output, name)

    def _layer_norm(self, operation: Operation, output: TracedArray) -> None:
        names = [self._whole(array) for array in operation.inputs]
        assert operation.attributes is not None
        self._set(output, self.graph.add(operation.kind, names, axis=-1, **operation.attributes)[0])

    def _gelu(self, operation: Operation, output: TracedArray) -> None:
        value = self._plain(operation.inputs[0])
        assert operation.attributes is not None
        self._set(output, self.graph.one("Gelu", value.name, **operation.attributes), value.held)

    def _rotary(self, operation: Operation, output: TracedArray) -> None:
        values, *table = operation.inputs
        half = table[0].shape[-1]
        assert isinstance(half, int)
        dimensions: dict[str, Any] = {} if 2 * half == values.shape[-1] else {"rotary_embedding_dim": 2 * half}
        name = self.graph.add(
            "RotaryEmbedding", [self._whole(values), *map(self._whole, table), self._positions()], **dimensions
        )[0]
        self._set(output, name)

    def _positions(self) -> str:
        """Return the name of the position of every token, (batch, length) int64."""
        graph = self.graph
        positions = graph.shared("Range", *(graph.scalar(number, "int64") for number in (0, LENGTH, 1)))
        return graph.shared("Expand", positions, graph.sizes(self._trace.inputs[0].shape))

    def _attention(self, operation: Operation, output: TracedArray) -> None:
        """Choose the faster of two operators: ONNX Runtime's own, where there are as many key heads as heads."""
        queries, keys, values, *masks = operation.inputs
        assert operation.attributes is not None
        scale, causal = operation.attributes["scale"], operation.attributes["is_causal"]
        if queries.shape[1] == keys.shape[1]:
            sides = [self._heads_last(array) for array in (queries, keys, values)]
            key_mask, bias = self._masks(masks)
            inputs = [*sides, "", key_mask, bias]
            while not inputs[-1]:
                inputs.pop()
            name = self.graph.add(
                "MultiHeadAttention",
                inputs,
                domain=_MICROSOFT,
                num_heads=queries.shape[1],
                scale=scale,
                unidirectional=causal,
                mask_filter_value=_MASKED,
            )[0]
            self._set(output, name)
            return
        mask = [self._spread(masks[0], queries, keys)] if masks else []
        heads = [self._whole(array) for array in (queries, keys, values)]
        attended = self.graph.add("Attention", [*heads, *mask], scale=scale, is_causal=causal)[0]
        apart = (output.shape[0], output.shape[1], queries.shape[1], values.shape[-1])
        side_by_side = self.graph.one("Transpose", attended, perm=[0, 2, 1, 3])
        self._set(output, self.graph.one("Reshape", side_by_side, self._target(apart, output.shape)))

    def _heads_last(self, array: TracedArray) -> str:
        """Return the name of (batch, length, heads * head size) of (batch, heads, length, head size)."""
        split = self._producers.get(array.name)
        if split is not None and split.kind == "Split" and split.arguments[1] == 1:
            turned = self._producers.get(split.inputs[0].name)
            apart = self._producers.get(turned.inputs[0].name) if turned and turned.kind == "Transpose" else None
            if turned is not None and apart is not None and apart.kind in ("Reshape", "Unflatten"):
                joined = self._plain(apart.inputs[0])
                if turned.arguments[0] == (0, 2, 1, 3) and len(joined.shape) == 3:
                    return self._split_joined(split, self._whole_value(joined), array)
        batch, heads, length, size = array.shape
        turned_back = self.graph.one("Transpose", self._whole(array), perm=[0, 2, 1, 3])
        apart_shape = (batch, length, heads, size)
        return self.graph.one("Reshape", turned_back, self._target(apart_shape, (batch, length, heads * size)))  # type: ignore[operator]

    def _split_joined(self, split: Operation, joined: str, wanted: TracedArray) -> str:
        sizes = [array.shape[1] * array.shape[3] for array in split.outputs]  # type: ignore[operator]
        key = ("split", joined, tuple(sizes))
        if key not in self._splits:
            self._splits[key] = self.graph.add("Split", [joined, self.graph.sizes(tuple(sizes))], len(sizes), axis=2)
        return self._splits[key][[array.name for array in split.outputs].index(wanted.name)]

    def _masks(self, masks: Sequence[TracedArray]) -> tuple[str, str]:
        """Return the mask of keys (batch, length) int32 and the bias of scores of `MultiHeadAttention`, "" for none."""
        if not masks:
            return "", ""
        value = self._plain(masks[0])
        if value.dtype == "bool" and value.shape[2] == 1 and value.held == value.shape:
            seen = self.graph.shared("Squeeze", value.name, self._integers([1, 2]))
            return self.graph.shared("Cast", seen, to=onnx_type("int32")), ""
        return "", self._bias(value)

    def _bias(self, value: Value) -> str:
        """Return the name of what is added to the scores for a mask."""
        name = self._whole_value(value)
        if value.dtype != "bool":
            return name
        return self.graph.shared(
            "Where", name, self.graph.constant(0, "float32"), self.graph.constant(_MASKED, "float32")
        )

    def _spread(self, mask: TracedArray, queries: TracedArray, keys: TracedArray) -> str:
        """Return the name of a mask for each query, as `Attention` takes it."""
        value = self._plain(mask)
        bias = self._bias(value)
        shape = (*mask.shape[:2], queries.shape[2], keys.shape[2])
        return bias if mask.shape == shape else self.graph.shared("Expand", bias, self.graph.sizes(shape))


_METHODS: dict[str, Callable[[Converter, Operation, TracedArray], None]] = {
    "NotEqual": Converter._not_equal,
    "BitwiseBinary": Converter._bitwise,
    "Square": Converter._square,
    "Sqrt": Converter._sqrt,
    "Log1p": Converter._log1p,
    "Expm1": Converter._expm1,
    "LogAddExp": Converter._log_add_exp,
    "AsType": Converter._cast,
    "Arange": Converter._arange,
    **dict.fromkeys(("Broadcast", "Full", "Depends", "Contiguous", "Copy", "StopGradient"), Converter._alias),
    **dict.fromkeys(("Reshape", "Flatten", "Unflatten"), Converter._reshape),
    "ExpandDims": Converter._expand_dims,
    "Squeeze": Converter._squeeze,
    "Transpose": Converter._transpose,
    "Split": Converter._split,
    "Slice": Converter._slice,
    "Concatenate": Converter._concatenate,
    "Gather": Converter._gather,
    "GatherAxis": Converter._gather_axis,
    "Matmul": Converter._matmul,
    "Reduce": Converter._reduce,
    "Scan": Converter._scan,
    "LayerNormalization": Converter._layer_norm,
    "RMSNormalization": Converter._layer_norm,
    "Gelu": Converter._gelu,
    "RotaryEmbedding": Converter._rotary,
    "Attention": Converter._attention,
}


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that arrays of these shapes are broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def _integer(number: Any) -> int | Size:
    """Return a bound of a range, which MLX tells as a float."""
    return number if isinstance(number, Size) else int(number)
