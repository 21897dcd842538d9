"""The model that is to be quantised: its files, and the matrices that the loader takes in a packed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import build_encoder
from akidb_mlx.backends.mlx.layers import Linear, QuantizedMatrix
from akidb_mlx.backends.mlx.model import build_all_heads
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.kinds import read_any
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime.locks import device_lock

# A matrix of fewer rows is one of a few labels or types, and takes no space.
_FEWEST_ROWS = 16


@dataclass(frozen=True)
class Matrix:
    """A matrix that may be packed.

    Attributes:
        layer: the encoder's name of its layer.
        stored: its tensor.
        rows: how many outputs, or entries of a table, it has.
        columns: size of its input, or of an entry.
        product: the layers that are computed in one product with it, itself among them.
    """

    layer: str
    stored: StoredTensor
    rows: int
    columns: int
    product: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return how many numbers it holds."""
        return self.rows * self.columns

    def refusal(self, group_size: int) -> str | None:
        """Return the reason why it cannot be packed in groups of that size; None where it can."""
        if self.rows < _FEWEST_ROWS:
            return f"has only {self.rows} rows"
        if self.columns % group_size:
            return f"has {self.columns} columns, which groups of {group_size} do not divide"
        return None


def plain_plan() -> ExecutionPlan:
    """Return the plan of a model in float32 on the CPU, where results do not depend on the machine's GPU."""
    return ExecutionPlan(mx.Device(mx.cpu), mx.float32, exact=True, token_budget=1, lanes=1)


def parameter_type(encoder: Checkpoint) -> mx.Dtype:
    """Return the type that scales and biases are stored in: the half precision that the model can run in."""
    if encoder.dtype == "bfloat16" or (encoder.dtype == "float32" and encoder.architecture.float16_overflows):
        return mx.bfloat16
    return mx.float16


def read_source(directory: Path) -> Checkpoint:
    """Read a model of any kind.

    Raises:
        ModelLoadError: it is none that is supported, has no matrices to pack, or is quantised already.
    """
    checkpoint = read_any(directory)
    if checkpoint.static is not None:
        raise ModelLoadError(
            f"{directory} is a static model: it is one table, which is read without any packing; there is nothing to "
            "quantise"
        )
    if (found := checkpoint.quantization_summary) is not None:
        raise ModelLoadError(
            f"{directory} is quantised already ({found}): quantise the original, as the values between are lost"
        )
    return checkpoint


def list_matrices(encoder: Checkpoint) -> list[Matrix]:
    """Return the matrices of one encoder and its heads that the loader takes in a packed form, in its order.

    Raises:
        ModelLoadError: the checkpoint does not fit its configuration.
    """
    reader = _MatrixReader(encoder, plain_plan())
    with device_lock, mx.stream(mx.cpu):
        built = build_encoder(encoder, reader, plain_plan())
        build_all_heads(encoder, reader, plain_plan(), built.hidden_size)
    reader.check_complete()
    return [
        Matrix(layer, encoder.tensors[f"{layer}.weight"], *shape, reader.products.get(layer, (layer,)))
        for layer, shape in reader.matrices.items()
    ]


class _MatrixReader(WeightReader):
    """Notes the matrices that a model asks for; nothing is computed of what it hands out.

    Attributes:
        matrices: the shape of each, by the name of its layer.
        products: for layers that are computed together, the names of all.
    """

    def __init__(self, checkpoint: Checkpoint, plan: ExecutionPlan) -> None:
        super().__init__(checkpoint, plan)
        self.matrices: dict[str, tuple[int, int]] = {}
        self.products: dict[str, tuple[str, ...]] = {}

    def fused_linear(self, names: Sequence[str], outputs: Sequence[int], inputs: int, bias: bool = False) -> Linear:
        """Note which layers are one product; see `WeightReader.fused_linear`."""
        self.products |= dict.fromkeys(names, tuple(names))
        return super().fused_linear(names, outputs, inputs, bias)

    def _matrix(self, layer: str, rows: int, columns: int) -> QuantizedMatrix | mx.array:
        self.matrices.setdefault(layer, (rows, columns))
        return super()._matrix(layer, rows, columns)
