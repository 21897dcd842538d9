"""A model directory in memory: JSON files and tensors by path."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
WEIGHTS = "model.safetensors"


@dataclass
class Contents:
    """The files of a model directory.

    Attributes:
        files: the values of JSON files, by path in the directory.
        tensors: the float32 tensors of safetensors files, by path in the directory.
        dtype: the type that the files of `tensors` are written in: "float32", "float16" or "bfloat16".
        spare_ids: rows of the embedding that no token of the tokenizer has.
    """

    files: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensors] = field(default_factory=dict)
    dtype: str = "float32"
    spare_ids: int = 0

    def write(self, directory: Path) -> None:
        """Write the files into a new directory."""
        directory.mkdir(parents=True)
        for name, value in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        for name, tensors in self.tensors.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_safetensors(tensors, self.dtype))


def _safetensors(tensors: Tensors, dtype: str) -> bytes:
    """Return a safetensors file. The library's own function for NumPy cannot write bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        kind, values = _stored(array, dtype)
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    return len(described).to_bytes(8, "little") + described + data


def _stored(array: np.ndarray, dtype: str) -> tuple[str, np.ndarray]:
    if array.dtype == np.int64:
        return "I64", array
    if dtype == "bfloat16":  # NumPy has none: the upper halves of float32
        return "BF16", (array.view(np.uint32) >> 16).astype(np.uint16)
    return ("F16", array.astype(np.float16)) if dtype == "float16" else ("F32", array)
