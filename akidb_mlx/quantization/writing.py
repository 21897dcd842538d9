"""The files of a quantised model: weights that are packed part by part, the configuration, and copies of the rest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.files import read_json
from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.quantization.compensation import pack_compensated
from akidb_mlx.quantization.packing import chunk_rows, pack_rows
from akidb_mlx.quantization.source import Matrix
from akidb_mlx.quantization.tensor_files import (
    Entry,
    TensorReader,
    create_tensors,
    open_tensors,
    tensor_bytes,
    to_numpy,
    type_name,
)
from akidb_mlx.runtime.locks import device_lock
from model_cache.files import INDEX, list_names

# The encoders that mlx-lm knows, by the modules of ours; it looks for their tensors below "model.".
_LANGUAGE_MODELS = ("decoder:", "gemma3:")
_BELOW_MODEL = ("embed_tokens.", "layers.", "norm.")
# What a tensor takes in a header, at most: twice what is usual.
_HEADER_BYTES = 300
# Files that are no part of a quantised model: weights that are not read, code, and what was measured of the original.
_LEFT_OUT = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".npz"),
    *(".py", ".safetensors.index.json", "akidb_fidelity.json", "akidb_answers.json", "akidb_quantization.json"),
)


@dataclass(frozen=True)
class Job:
    """A matrix that is to be packed.

    Attributes:
        matrix: the matrix.
        packing: the packing.
        dtype: the type of scales and biases.
        moment: the second moment of its inputs, by which errors are made up for; None to pack each number by itself.
    """

    matrix: Matrix
    packing: Quantization
    dtype: mx.Dtype
    moment: NDArray[np.float32] | None = None

    def layout(self) -> dict[str, tuple[str, tuple[int, int]]]:
        """Return the type and the shape of each of its arrays, by the last part of its name."""
        rows, columns, packing = self.matrix.rows, self.matrix.columns, self.packing
        groups = (rows, columns // packing.group_size)
        found = {"weight": ("U32", (rows, columns * packing.bits // 32))}
        if packing.mode != "affine":
            return {**found, "scales": ("U8", groups)}
        return {**found, "scales": (type_name(self.dtype), groups), "biases": (type_name(self.dtype), groups)}

    def parts(self, reader: TensorReader) -> Iterator[tuple[int, dict[str, mx.array]]]:
        """Yield the arrays of some rows at a time, with the number of rows.

        Raises:
            ModelLoadError: the matrix holds values that are not finite.
        """
        rows = self.matrix.rows
        step = rows if self.moment is not None else chunk_rows(self.matrix.columns)
        for first in range(0, rows, step):
            last = min(rows, first + step)
            with device_lock, mx.stream(mx.cpu):
                weight = reader.rows(self.matrix.stored.key, first, last)
                if not mx.isfinite(weight).all().item():
                    raise ModelLoadError(
                        f"{self.matrix.stored.file}: {self.matrix.stored.key} holds values that are not finite"
                    )
                if self.moment is None:
                    packed = pack_rows(weight, self.packing, self.dtype)
                else:
                    packed = pack_compensated(weight, self.packing, self.dtype, self.moment)
                mx.eval(packed)
            yield last - first, packed


def write_weights(
    encoder: Checkpoint, root: Path, folder: Path, jobs: Sequence[Job], advance: Callable[[int], None]
) -> None:
    """Write the files of weights of one encoder and its modules.

    Args:
        encoder: the encoder.
        root: the model directory.
        folder: the same place of the quantised model.
        jobs: its matrices that are to be packed.
        advance: called with the number of bytes of the original that were read.
    """
    by_key = {(job.matrix.stored.file, job.matrix.stored.key): job for job in jobs}
    weight_map: dict[str, str] = {}
    total = 0
    for file in dict.fromkeys(stored.file for stored in encoder.tensors.values()):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        own = {key: job for (place, key), job in by_key.items() if place == file}
        layout = _write_file(encoder, file, target, own, advance)
        if file.parent == encoder.directory:
            weight_map |= dict.fromkeys(layout, file.name)
            total += target.stat().st_size
    if len(set(weight_map.values())) > 1 or (encoder.directory / INDEX).is_file():
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / encoder.directory.relative_to(root) / INDEX).write_text(json.dumps(index, indent=2), "utf-8")


def write_config(encoder: Checkpoint, root: Path, folder: Path, jobs: Sequence[Job]) -> None:
    """Write config.json with the packings as mlx-lm writes them: the most common, and each other under its layer."""
    path = encoder.directory / "config.json"
    config = read_json(path)
    counts = Counter(job.packing for job in jobs)
    (default, _), *_ = counts.most_common(1)
    section: dict[str, Any] = default.model_dump()
    for job in jobs:
        if job.packing != default:
            section[_stated_name(encoder, job.matrix)] = job.packing.model_dump()
    config |= {"quantization": section, "quantization_config": section}
    target = folder / path.relative_to(root)
    target.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def fixed_bytes(encoder: Checkpoint, chosen: Collection[str]) -> int:
    """Return the bytes that a quantised model takes for headers and for all but those layers, at most."""
    packed = {f"{layer}.weight" for layer in chosen}
    others = [stored for name, stored in encoder.tensors.items() if name not in packed]
    names = len(others) + 3 * len(packed)
    return sum(tensor_bytes(stored.dtype, stored.shape) for stored in others) + names * _HEADER_BYTES


def copy_others(root: Path, folder: Path) -> None:
    """Copy the files of a model that hold no weights: tokenizers, modules, prompts, the card and the licence."""
    for name in list_names(root):
        if not name.endswith(_LEFT_OUT) and not any(part.startswith(".") for part in Path(name).parts):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)


def _write_file(
    encoder: Checkpoint, file: Path, target: Path, jobs: Mapping[str, Job], advance: Callable[[int], None]
) -> list[str]:
    """Write one file of weights, and return the names of its tensors."""
    own = file.parent == encoder.directory  # else a module's, whose names are its class's
    with open_tensors(file) as reader:
        names = {key: _name(encoder, key) if own else key for key in reader.entries}
        layout: dict[str, tuple[str, Sequence[int]]] = {}
        for key, entry in reader.entries.items():
            if key in jobs:
                layout |= {f"{_layer(names[key])}.{part}": form for part, form in jobs[key].layout().items()}
            else:
                layout[names[key]] = (entry.dtype, entry.shape)
        with create_tensors(target, layout) as writer:
            for key, entry in reader.entries.items():
                if key not in jobs:
                    for block in reader.blocks(key):
                        writer.append(names[key], block)
                        advance(len(block))
                    continue
                for rows, arrays in jobs[key].parts(reader):
                    for part, array in arrays.items():
                        writer.append(f"{_layer(names[key])}.{part}", to_numpy(array))
                    advance(_bytes_of(entry, rows))
    return list(layout)


def _name(encoder: Checkpoint, key: str) -> str:
    """Return the name that a tensor has in the quantised model."""
    known = encoder.architecture.encoder.startswith(_LANGUAGE_MODELS)
    return f"model.{key}" if known and key.startswith(_BELOW_MODEL) else key


def _stated_name(encoder: Checkpoint, matrix: Matrix) -> str:
    """Return the name of a layer in config.json: a module's own, where it has a file of its own."""
    if matrix.stored.file.parent != encoder.directory:
        return matrix.layer
    return _layer(_name(encoder, matrix.stored.key))


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _bytes_of(entry: Entry, rows: int) -> int:
    return (entry.stop - entry.start) * rows // entry.shape[0]
