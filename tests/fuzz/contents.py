"""A model directory in memory: JSON files and tensors by path."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import serialize_file

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
            stored = {key: _stored(array, self.dtype) for key, array in tensors.items()}
            serialize_file(stored, path, {"format": "pt"})


def _stored(array: np.ndarray, dtype: str) -> dict[str, Any]:
    if array.dtype.kind == "i":
        values, dtype = array, array.dtype.name
    elif dtype == "bfloat16":  # NumPy has none: the upper halves of float32
        values = (array.view(np.uint32) >> 16).astype(np.uint16)
    else:
        values = array.astype(dtype)
    return {"dtype": dtype, "shape": array.shape, "data": values.tobytes()}
