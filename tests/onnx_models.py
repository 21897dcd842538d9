"""ONNX files for tests: tiny models that are exported, and small graphs made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from akidb_mlx.backends.onnx.export import export_model
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from tests.support import GOLDENS

# Token vectors of the graphs made by hand.
TABLE = np.random.default_rng(3).normal(size=(2000, 32)).astype(np.float32)


def exported(name: str, into: Path, *, pooled: bool = True, file: str = "model.onnx") -> Path:
    """A copy of a tiny model with an ONNX file."""
    directory = into / f"{name}-{pooled}"
    if not directory.exists():
        shutil.copytree(GOLDENS / name, directory)
    export_model(read_checkpoint(directory), {}, directory / "onnx" / file, pooled=pooled)
    return directory


def with_model(into: Path, model: onnx.ModelProto | bytes, name: str = "tiny-bert", file: str = "model.onnx") -> Path:
    """A copy of a tiny model, with this ONNX file."""
    directory = into / name
    if not directory.exists():
        shutil.copytree(GOLDENS / name, directory)
    (directory / "onnx").mkdir(exist_ok=True)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (directory / "onnx" / file).write_bytes(content)
    return directory


def table_model(
    *,
    output: str = "last_hidden_state",
    table: np.ndarray = TABLE,
    mask: int | None = TensorProto.INT64,
    ids: int = TensorProto.INT64,
    extra: tuple[tuple[str, int], ...] = (),
    shape: tuple[object, object] = ("batch", "length"),
    nodes: tuple[onnx.NodeProto, ...] = (),
) -> onnx.ModelProto:
    """A model whose token vectors are rows of a table, or NaN where the mask says that there is padding."""
    inputs = [helper.make_tensor_value_info("input_ids", ids, shape)]
    kind = helper.np_dtype_to_tensor_dtype(table.dtype)
    steps = [*nodes, helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    constants = [numpy_helper.from_array(table, "table")]
    if mask is None:
        steps.append(helper.make_node("Identity", ["rows"], [output]))
    else:
        inputs.append(helper.make_tensor_value_info("attention_mask", mask, shape))
        constants += [numpy_helper.from_array(np.array(np.nan, table.dtype), "nan")]
        constants += [numpy_helper.from_array(np.array([2]), "last")]
        steps += [
            helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.BOOL),
            helper.make_node("Unsqueeze", ["seen", "last"], ["seen_rows"]),
            helper.make_node("Where", ["seen_rows", "rows", "nan"], [output]),
        ]
    inputs += [helper.make_tensor_value_info(name, dtype, shape) for name, dtype in extra]
    outputs = [helper.make_tensor_value_info(output, kind, ["batch", "length", 32])]
    graph = helper.make_graph(steps, "table", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
