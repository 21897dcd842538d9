"""From stored tensors to layers on the device, each checked against the shape that the model expects.

An encoder is built by asking a `WeightReader` for its layers one by one; that is at once the declaration of what a
checkpoint must hold. Arrays stay lazy until the model is complete and `finish()` has found nothing missing, misshapen
or left over, so a wrong checkpoint costs no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from akidb_mlx.backends.mlx.device import ExecutionPlan
from akidb_mlx.backends.mlx.layers import Embedding, Linear, Packing
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.errors import ModelLoadError

_NAMED = 5  # problems listed in an error before the rest are only counted


class WeightReader:
    """Hands out a checkpoint's layers. Belongs to the owner thread, like all that it returns."""

    def __init__(self, checkpoint: Checkpoint, plan: ExecutionPlan) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._files: dict[Path, dict[str, mx.array]] = {}
        self._read: set[str] = set()
        self._problems: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the checkpoint stores a tensor of that name."""
        return name in self._checkpoint.tensors

    def vector(self, name: str, size: int, offset: float = 0.0) -> mx.array:
        """A norm's weight or a bias, shape (size,), with `offset` added before it is rounded to the plan's type."""
        stored = self._tensor(name, (size,))
        return ((stored.astype(mx.float32) + offset) if offset else stored).astype(self._plan.dtype)

    def linear(self, name: str, outputs: int, inputs: int, bias: bool = False) -> Linear:
        """A linear layer; quantised where its scales are stored and the plan keeps them so."""
        return self.fused_linear([name], [outputs], inputs, bias)

    def fused_linear(self, names: Sequence[str], outputs: Sequence[int], inputs: int, bias: bool = False) -> Linear:
        """Several linear layers on the same input as one, their outputs side by side."""
        packings = [self._packing(name, rows, inputs) for name, rows in zip(names, outputs, strict=True)]
        biases = [self.vector(f"{name}.bias", rows) for name, rows in zip(names, outputs, strict=True)] if bias else []
        joined_bias = mx.concatenate(biases) if biases else None
        first = packings[0]
        if isinstance(first, Packing) and not self._plan.exact:
            same = [p for p in packings if isinstance(p, Packing) and p.quantization == first.quantization]
            if len(same) == len(packings):
                return Linear(Packing.concatenate(same), joined_bias, self._plan.exact)
        dense = [p.unpack() if isinstance(p, Packing) else p for p in packings]
        return Linear(mx.concatenate(dense).astype(self._plan.dtype), joined_bias, self._plan.exact)

    def embedding(self, name: str, rows: int, size: int) -> Embedding:
        """A table of vectors. A quantised one stays so everywhere: only the rows that are looked up are unpacked."""
        table = self._packing(name, rows, size)
        return Embedding(table if isinstance(table, Packing) else table.astype(self._plan.dtype))

    def finish(self) -> None:
        """Check that all was there and nothing is left.

        Raises:
            ModelLoadError: tensors are missing, misshapen, of an unusable type or not the model's; they are named.
        """
        unused = self._checkpoint.architecture.unused
        extra = sorted(name for name in set(self._checkpoint.tensors) - self._read if not name.startswith(unused))
        problems = self._problems + [f"{name} is not part of the model" for name in extra]
        if problems:
            rest = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
            raise ModelLoadError(
                f"{self._checkpoint.directory} does not fit its config.json: {'; '.join(problems[:_NAMED])}{rest}"
            )

    def _packing(self, layer: str, rows: int, columns: int) -> Packing | mx.array:
        """The weight (rows, columns) of a layer, packed where it has scales."""
        if not self.has(f"{layer}.scales"):
            return self._tensor(f"{layer}.weight", (rows, columns))
        quantization = self._checkpoint.quantization.of(layer)
        groups = columns // quantization.group_size
        scales = self._tensor(f"{layer}.scales", (rows, groups), floating=quantization.mode == "affine")
        biases = self._tensor(f"{layer}.biases", (rows, groups)) if quantization.mode == "affine" else None
        return Packing(
            weight=self._tensor(f"{layer}.weight", (rows, columns * quantization.bits // 32), floating=False),
            scales=scales if biases is None else self._packing_parameter(scales),
            biases=None if biases is None else self._packing_parameter(biases),
            quantization=quantization,
            dtype=self._plan.dtype,
        )

    def _packing_parameter(self, stored: mx.array) -> mx.array:
        """Scales or biases in the plan's type.

        Float16 is not narrowed to bfloat16, which would cost three bits of every weight; MLX then multiplies in
        float32.
        """
        narrows = stored.dtype == mx.float16 and self._plan.dtype == mx.bfloat16
        return stored if narrows else stored.astype(self._plan.dtype)

    def _tensor(self, name: str, shape: tuple[int, ...], floating: bool = True) -> mx.array:
        """A stored tensor as it is; where it does not fit, the problem is noted and an array that does stands in."""
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
