"""The computation of a model as data: MLX's own operations, with sizes that depend on the batch and on the length.

A function is traced for several sizes of its inputs, which computes nothing. Where the numbers of the traces differ,
they are solved for the sizes; a function whose operations differ has no single graph and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx.operators import naming_operators
from akidb_mlx.backends.traced import Operation, Size, Trace, TracedArray
from akidb_mlx.errors import ModelLoadError

# Batch and length of each trace: primes, the lengths beyond any window or limit on which an encoder branches.
_SIZES = ((3, 1_048_583), (5, 1_048_613), (11, 1_048_733))
# The powers of batch and length in a size.
_FORMS = ((0, 1), (1, 0), (1, 1))


def trace(function: Callable[..., Sequence[mx.array]], inputs: Callable[[int, int], Sequence[mx.array]]) -> Trace:
    """Trace a function of arrays.

    Args:
        function: makes arrays of arrays, with MLX, and evaluates none.
        inputs: makes arrays of the shapes and types of its inputs, for a batch and a length.

    Raises:
        ModelLoadError: its operations depend on the sizes.
    """
    recorded = [_record(function, inputs(*sizes)) for sizes in _SIZES]
    first = recorded[0]
    if any(one.kinds != first.kinds for one in recorded):
        raise ModelLoadError("its operations depend on the number or the length of its texts")
    join = _Joiner()
    operations = [
        Operation(
            raw[0]["name"],
            tuple(join.array(one) for one in zip(*(step["inputs"] for step in raw), strict=True)),
            tuple(join.array(one) for one in zip(*(step["outputs"] for step in raw), strict=True)),
            tuple(join.value(one) for one in zip(*(step["arguments"] for step in raw), strict=True)),
        )
        for raw in zip(*(one.operations for one in recorded), strict=True)
    ]
    outputs = tuple(join.array(one) for one in zip(*(one.outputs for one in recorded), strict=True))
    needed = _needed([_unwrapped(operation, first.constants) for operation in operations], outputs)
    used = {array.name for operation in needed for array in operation.inputs} | {array.name for array in outputs}
    return Trace(
        tuple(join.array(one) for one in zip(*(one.inputs for one in recorded), strict=True)),
        outputs,
        {name: _plain(array) for name, array in first.constants.items() if name in used},
        needed,
    )


class _Recorder:
    """Takes what MLX tells of a function that it exports."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[str, mx.array] = {}
        self.operations: list[dict[str, Any]] = []

    def __call__(self, told: dict[str, Any]) -> None:
        kind = told["type"]
        if kind == "inputs":
            self.inputs = told["inputs"]
        elif kind == "outputs":
            self.outputs = told["outputs"]
        elif kind == "constants":
            self.constants = dict(told["constants"])
        elif kind == "primitive":
            self.operations.append(told)

    @property
    def kinds(self) -> list[tuple[str, list[str], list[str]]]:
        """Return the kind of each operation and the names of its arrays."""
        return [
            (one["name"], [array[0] for array in one["inputs"]], [array[0] for array in one["outputs"]])
            for one in self.operations
        ]


def _record(function: Callable[..., Sequence[mx.array]], inputs: Sequence[mx.array]) -> _Recorder:
    recorder = _Recorder()
    with naming_operators():
        mx.export_function(recorder, function, *inputs)
    return recorder


class _Joiner:
    """Joins what the traces say of the same thing."""

    def array(self, found: Sequence[Any]) -> TracedArray:
        """Return an array with the sizes that all traces have."""
        name, _, dtype = found[0]
        return TracedArray(name, self.value([tuple(one[1]) for one in found]), str(dtype).removeprefix("mlx.core."))

    def value(self, found: Sequence[Any]) -> Any:
        """Return an argument, in which numbers that differ are sizes."""
        first = found[0]
        if isinstance(first, (list, tuple)):
            if len({len(one) for one in found}) > 1:
                raise ModelLoadError("its operations depend on the number or the length of its texts")
            return tuple(self.value(one) for one in zip(*found, strict=True))
        if all(one == first for one in found):
            return first
        return _solve([int(number) for number in found])


def _solve(values: Sequence[int]) -> Size:
    """Return the size that has these values in the traces."""
    for batch_power, length_power in _FORMS:
        terms = [batch**batch_power * length**length_power for batch, length in _SIZES]
        factor, rest = divmod(values[1] - values[0], terms[1] - terms[0])
        size = Size(factor, batch_power, length_power, values[0] - factor * terms[0])
        if not rest and [size.at(*sizes) for sizes in _SIZES] == list(values):
            return size
    raise ModelLoadError(
        f"one of its sizes ({', '.join(map(str, values))}) depends on those of its texts in no known way"
    )


def _unwrapped(operation: Operation, constants: Mapping[str, mx.array]) -> Operation:
    """Return the operator that a mark of `operators.named` stands for, or else the operation itself."""
    if operation.kind != "Depends":
        return operation
    _, label, *inputs = operation.inputs
    kind, attributes = json.loads(bytes(constants[label.name].tolist()))  # type: ignore[arg-type]
    return Operation(kind, tuple(inputs), operation.outputs, attributes=attributes)


def _needed(operations: Sequence[Operation], outputs: Sequence[TracedArray]) -> tuple[Operation, ...]:
    """Return the operations that the outputs depend on."""
    wanted = {array.name for array in outputs}
    found: list[Operation] = []
    for operation in reversed(operations):
        if any(array.name in wanted for array in operation.outputs):
            wanted |= {array.name for array in operation.inputs}
            found.append(operation)
    return tuple(reversed(found))


def _plain(array: mx.array) -> NDArray[Any]:
    return np.array(array)
