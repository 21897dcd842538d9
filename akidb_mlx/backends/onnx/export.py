"""An embedding model as an ONNX file, made of the encoder that MLX runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.onnx.conversion import convert
from akidb_mlx.backends.onnx.graph import OPSET, Graph
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenization.ids import table_rows
from akidb_mlx.checkpoint.tokenization.loading import load_tokenizer
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import mlx_import

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

# The version of the file format that has the operators of `OPSET`.
_IR_VERSION = 11
# Bytes of weights beyond which they lie in a file of their own: a protobuf message may have 2 GB.
_MAX_INLINE = 1 << 30
# Bytes from which on a constant is one of the weights, which may lie there.
_SMALL = 1024
_ALIGNMENT = 4096
_PREFIX = "akidb."
# The numbers of types in onnx.proto.
_FLOAT, _INT32, _INT64 = 1, 6, 7


def check_exportable() -> None:
    """Look for what an export needs, without importing it.

    Raises:
        ConfigurationError: MLX or the package onnx is not installed.
    """
    mlx_import.check_installed()
    if find_spec("onnx") is None:
        raise ConfigurationError("an export to ONNX needs the package onnx: pip install 'akidb-mlx[onnx]'")


def export_model(
    checkpoint: Checkpoint,
    prompts: Mapping[str, str],
    file: Path,
    *,
    pooled: bool = True,
    normalized: bool = False,
    matryoshka: bool | None = None,
    dimensions: int | None = None,
) -> list[Path]:
    """Write a model as an ONNX file, in float32; what is there is replaced.

    Its inputs are `input_ids` and `attention_mask`, both (batch, length) int64 with padding on the right. Its output is
    `sentence_embedding` (batch, dimension), or `token_embeddings` (batch, length, size) where it is not pooled.

    Args:
        checkpoint: the model.
        prompts: the prompts that stand in the file's metadata.
        file: where to; the weights of a large model go into a file beside it, of this name and "_data".
        pooled: whether the pooling and the modules after it are part of the file.
        normalized: whether the vectors are divided by their length.
        matryoshka: whether the metadata say that vectors may be cut; None for what the checkpoint says.
        dimensions: the size that the metadata say vectors have by default; None for what the checkpoint says.

    Returns:
        The files that were written.

    Raises:
        ModelLoadError: the model cannot be written as ONNX, or its files do not fit its configuration.
        ConfigurationError: MLX or the package onnx is not installed.
    """
    check_exportable()
    _check(checkpoint, pooled)
    mlx_import.prepare()
    from akidb_mlx.backends.mlx.export_plan import trace_model

    try:
        trace = trace_model(checkpoint, pooled=pooled, normalized=normalized)
        graph = Graph("input_ids")
        mask = graph.one("Cast", "attention_mask", to=_INT32)
        lengths = graph.one("ReduceSum", mask, graph.constant([1]), keepdims=0)
        (output,) = convert(trace, [graph.one("Cast", "input_ids", to=_INT32), lengths], graph)
    except ModelLoadError as error:
        raise ModelLoadError(f"{checkpoint.model_type} cannot be exported to ONNX: {error}") from error
    dimension = trace.outputs[0].shape[-1]
    assert isinstance(dimension, int)  # sizes of a batch are on the axes before
    if matryoshka is None:
        matryoshka = checkpoint.architecture.matryoshka or checkpoint.truncate_dim is not None
    metadata = {
        "format": "1",
        "model_type": checkpoint.model_type,
        "dimension": str(dimension),
        "default_dimension": str(min(dimensions or checkpoint.truncate_dim or dimension, dimension)),
        "matryoshka": json.dumps(matryoshka),
        "max_tokens": str(checkpoint.max_tokens),
        "pooling": checkpoint.pooling if pooled else "none",
        "normalized": json.dumps(normalized),
        "prompts": json.dumps(dict(prompts)),
        **_describe_tokenizer(checkpoint),
    }
    return _write(file, graph, output, "sentence_embedding" if pooled else "token_embeddings", dimension, metadata)


def _describe_tokenizer(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the tokenizer as this package uses it, for programs that do not read the other files as it does."""
    loaded = load_tokenizer(checkpoint)
    return {
        "tokenizer": loaded.tokenizer.to_str(),
        "special_tokens_before": json.dumps(loaded.frame.before),
        "special_tokens_after": json.dumps(loaded.frame.after),
        # The JSON of a tokenizer does not hold it.
        "splits_special_tokens": json.dumps(loaded.tokenizer.encode_special_tokens),
        "truncation_side": "left" if loaded.keeps_end else "right",
        "vocabulary_size": str(table_rows(checkpoint)),
    }


def _check(checkpoint: Checkpoint, pooled: bool) -> None:
    """Refuse a model that is no single encoder, or cannot be pooled without knowing more of a text than its tokens."""
    kinds = {
        "a static model": checkpoint.static is not None,
        "a model of several encoders": bool(checkpoint.towers),
        "a reranker": checkpoint.scoring is not None,
        "a sparse model": checkpoint.sparse is not None,
        "a multi-vector model": checkpoint.multi_vector is not None,
    }
    if kind := next((kind for kind, found in kinds.items() if found), None):
        raise ModelLoadError(f"{checkpoint.directory} is {kind}, which cannot be exported to ONNX")
    if not pooled:
        return
    heads = list(checkpoint.heads.values())
    if len(set(heads)) > 1:
        raise ModelLoadError(f"{checkpoint.directory} pools queries and documents in different ways: use --no-pooling")
    if not heads[0].pooling.include_prompt:
        raise ModelLoadError(f"{checkpoint.directory} leaves prompts out of the pooling: use --no-pooling")


def _write(file: Path, graph: Graph, made: str, output: str, dimension: Any, metadata: Mapping[str, str]) -> list[Path]:
    """Write a graph and its constants, each file in one step."""
    from onnx import helper

    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, _INT64, ["batch", "length"]) for name in names]
    shape = ["batch", *(["length"] if output == "token_embeddings" else []), dimension]
    graph.nodes.append(helper.make_node("Identity", [made], [output]))
    constants = sorted(graph.constants.items(), key=lambda item: item[1].nbytes)
    data = file.with_name(f"{file.name}_data")
    large = sum(array.nbytes for _, array in constants) > _MAX_INLINE
    tensors, apart = _tensors(constants, data.name if large else None)
    proto = helper.make_graph(
        graph.nodes, "model", inputs, [helper.make_tensor_value_info(output, _FLOAT, shape)], tensors
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="akidb-mlx")
    helper.set_model_props(model, {f"{_PREFIX}{key}": value for key, value in metadata.items()})
    file.parent.mkdir(parents=True, exist_ok=True)
    if large:
        _replace(data, apart)
    _replace(file, [model])
    return [file, data] if large else [file]


def _tensors(
    constants: list[tuple[str, NDArray[Any]]], data: str | None
) -> tuple[list[TensorProto], list[NDArray[Any]]]:
    """Return the constants as ONNX's, and the arrays that lie in a file of that name, in order."""
    from onnx import TensorProto, helper, numpy_helper

    tensors, apart, offset = [], [], 0
    for name, array in constants:
        if data is None or array.nbytes < _SMALL:
            tensors.append(numpy_helper.from_array(array, name))
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, dims=array.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", data), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        apart.append(array)
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return tensors, apart


def _replace(file: Path, parts: list[ModelProto] | list[NDArray[Any]]) -> None:
    """Write a file of a model, or of arrays, each at a place that may be mapped into memory."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as out:
            for part in parts:
                if isinstance(part, np.ndarray):
                    out.write(np.ascontiguousarray(part).data)
                    out.write(bytes(-part.nbytes % _ALIGNMENT))
                else:
                    out.write(part.SerializeToString())
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
