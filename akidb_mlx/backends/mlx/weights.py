"""Layers made of stored tensors, each checked against the shape that the model expects.

An encoder is built by asking a `WeightReader` for its layers one by one; its requests also declare what a checkpoint
must hold. Arrays stay lazy until the model is complete and `check_complete` has found no tensor missing, misshapen or
left over, so a wrong checkpoint costs no memory. `evaluate` then reads and computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import mlx.core as mx

from akidb_mlx.backends.mlx.layers import Embedding, Linear, QuantizedMatrix
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime.device_turns import evaluate_in_turns

# Problems that an error lists; the rest are only counted.
_MAX_LISTED = 5

_Weight = TypeVar("_Weight", mx.array, QuantizedMatrix)


class WeightReader:
    """Hands out a checkpoint's layers. Belongs to the owner thread, like everything that it returns."""

    def __init__(self, checkpoint: Checkpoint, plan: ExecutionPlan) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._files: dict[Path, dict[str, mx.array]] = {}
        self._read: set[str] = set()
        self._problems: list[str] = []
        self._handed_out: list[mx.array] = []

    def has(self, name: str) -> bool:
        """Return whether the checkpoint stores a tensor of that name."""
        return name in self._checkpoint.tensors

    def vector(self, name: str, size: int, offset: float = 0.0) -> mx.array:
        """Return a norm's weight or a bias (size,), with `offset` added before it is rounded to the plan's type."""
        return self._hand_out(self._vector(name, size, offset))

    def rows(self, layer: str) -> int:
        """Return how many outputs a linear layer has that the checkpoint stores."""
        return self._checkpoint.tensors[f"{layer}.weight"].shape[0]

    def linear(self, name: str, outputs: int, inputs: int, bias: bool = False) -> Linear:
        """Return a linear layer, quantised where its scales are stored and the plan keeps them."""
        return self.fused_linear([name], [outputs], inputs, bias)

    def fused_linear(self, names: Sequence[str], outputs: Sequence[int], inputs: int, bias: bool = False) -> Linear:
        """Return several linear layers on the same input as one, with their outputs side by side."""
        matrices = [self._matrix(name, rows, inputs) for name, rows in zip(names, outputs, strict=True)]
        joined_bias = None
        if bias:
            biases = [self._vector(f"{name}.bias", rows) for name, rows in zip(names, outputs, strict=True)]
            joined_bias = self._hand_out(mx.concatenate(biases))
        first = matrices[0]
        if isinstance(first, QuantizedMatrix) and not self._plan.exact:
            alike = [m for m in matrices if isinstance(m, QuantizedMatrix) and m.quantization == first.quantization]
            if len(alike) == len(matrices):
                return self._linear(names, self._hand_out(QuantizedMatrix.concatenate(alike)), joined_bias)
        plain = [m.dequantize() if isinstance(m, QuantizedMatrix) else m for m in matrices]
        joined = self._hand_out(mx.concatenate(plain).astype(self._plan.dtype))
        return self._linear(names, joined, joined_bias)

    def split_linear(self, name: str, parts: int, outputs: int, inputs: int) -> list[Linear]:
        """Return a linear layer without bias as `parts` layers of so many of its outputs each."""
        matrix = self._matrix(name, parts * outputs, inputs)
        rows = [mx.arange(part * outputs, (part + 1) * outputs) for part in range(parts)]
        if isinstance(matrix, QuantizedMatrix) and not self._plan.exact:
            return [self._linear([name], self._hand_out(matrix.rows(part))) for part in rows]
        plain = (matrix.dequantize() if isinstance(matrix, QuantizedMatrix) else matrix).astype(self._plan.dtype)
        return [self._linear([name], self._hand_out(plain[part])) for part in rows]

    def embedding(self, name: str, rows: int, size: int) -> Embedding:
        """Return a table of vectors. A quantised one stays so: only the rows that are looked up are dequantised."""
        table = self._matrix(name, rows, size)
        if isinstance(table, QuantizedMatrix):
            return self._embedding(name, self._hand_out(table))
        return self._embedding(name, self._hand_out(table.astype(self._plan.dtype)))

    def tied_linear(self, table: str, rows: int, size: int) -> Linear:
        """Return a linear layer without bias whose weight may be a table of vectors, which is not copied."""
        matrix = self._matrix(table, rows, size)
        if isinstance(matrix, QuantizedMatrix) and not self._plan.exact:
            return self._linear([table], self._hand_out(matrix))
        plain = matrix.dequantize() if isinstance(matrix, QuantizedMatrix) else matrix
        return self._linear([table], self._hand_out(plain.astype(self._plan.dtype)))

    def chosen_rows(self, name: str, rows: int, size: int, chosen: Sequence[int]) -> mx.array:
        """Return (chosen, size) float32, some rows of a layer's weight."""
        matrix, indices = self._matrix(name, rows, size), mx.array(list(chosen))
        found = matrix.rows(indices).dequantize() if isinstance(matrix, QuantizedMatrix) else matrix[indices]
        return self._hand_out(found.astype(mx.float32))

    def check_complete(self) -> None:
        """Check that the layers that were handed out are the whole checkpoint.

        Raises:
            ModelLoadError: tensors are missing, misshapen, of an unusable type or not the model's; they are named.
        """
        unused = self._checkpoint.architecture.unused
        extra = sorted(name for name in set(self._checkpoint.tensors) - self._read if not name.startswith(unused))
        problems = self._problems + [f"{cut(name)} is not part of the model" for name in extra]
        if problems:
            rest = f" and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
            raise ModelLoadError(
                f"{self._checkpoint.directory} does not fit its config.json: {'; '.join(problems[:_MAX_LISTED])}{rest}"
            )

    def evaluate(self) -> int:
        """Read and compute the arrays of all layers that were handed out, and return how many bytes they take.

        The device is held for a bounded number of bytes at a time, so that other models run in between.
        """
        self._files.clear()  # so that a stored tensor is freed once the array made of it is computed
        return evaluate_in_turns(self._handed_out)

    def _linear(self, names: Sequence[str], weight: QuantizedMatrix | mx.array, bias: mx.array | None = None) -> Linear:
        """Return a layer of the matrices of those names, or of a part of one."""
        del names
        return Linear(weight, bias, self._plan.exact)

    def _embedding(self, name: str, table: QuantizedMatrix | mx.array) -> Embedding:
        """Return the table of that name."""
        del name
        return Embedding(table)

    def _hand_out(self, weight: _Weight) -> _Weight:
        self._handed_out += weight.arrays if isinstance(weight, QuantizedMatrix) else [weight]
        return weight

    def _vector(self, name: str, size: int, offset: float = 0.0) -> mx.array:
        stored = self._tensor(name, (size,))
        return ((stored.astype(mx.float32) + offset) if offset else stored).astype(self._plan.dtype)

    def _matrix(self, layer: str, rows: int, columns: int) -> QuantizedMatrix | mx.array:
        """Return the weight (rows, columns) of a layer, quantised where it has scales."""
        if not self.has(f"{layer}.scales"):
            return self._tensor(f"{layer}.weight", (rows, columns))
        quantization = self._checkpoint.quantization.of(layer)
        groups = columns // quantization.group_size
        scales = self._tensor(f"{layer}.scales", (rows, groups), floating=quantization.mode == "affine")
        biases = self._tensor(f"{layer}.biases", (rows, groups)) if quantization.mode == "affine" else None
        return QuantizedMatrix(
            weight=self._tensor(f"{layer}.weight", (rows, columns * quantization.bits // 32), floating=False),
            scales=scales if biases is None else self._quantization_parameter(scales),
            biases=None if biases is None else self._quantization_parameter(biases),
            quantization=quantization,
            dtype=self._plan.dtype,
        )

    def _quantization_parameter(self, stored: mx.array) -> mx.array:
        """Return scales or biases in the plan's type.

        Float16 is not narrowed to bfloat16, which would cost three bits of every weight; MLX then multiplies in
        float32.
        """
        narrows = stored.dtype == mx.float16 and self._plan.dtype == mx.bfloat16
        return stored if narrows else stored.astype(self._plan.dtype)

    def _tensor(self, name: str, shape: tuple[int, ...], floating: bool = True) -> mx.array:
        """Return a stored tensor as it is; note the problem where it does not fit, and return zeros that do."""
        stored = self._checkpoint.tensors.get(name)
        self._read.add(name)
        if stored is None:
            self._problems.append(f"{name} is missing")
        elif stored.shape != shape:
            self._problems.append(f"{name} has shape {stored.shape}, expected {shape}")
        elif floating != (stored.dtype in ("F32", "F16", "BF16")):
            self._problems.append(f"{name} is stored as {stored.dtype}")
        else:
            return self._array(stored)
        return mx.zeros(shape)

    def _array(self, stored: StoredTensor) -> mx.array:
        if stored.file not in self._files:
            try:
                loaded = mx.load(str(stored.file))
            except (RuntimeError, ValueError) as error:
                raise ModelLoadError(f"{stored.file} cannot be loaded: {error}") from error
            assert isinstance(loaded, dict)  # what a safetensors file holds
            self._files[stored.file] = loaded
        return self._files[stored.file][stored.key]
