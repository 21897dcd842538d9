"""The tensors of a checkpoint by name, shape and type, read from the headers of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from akidb_mlx.checkpoint.architectures import Architecture
from akidb_mlx.checkpoint.files import is_file, read_json
from akidb_mlx.errors import ModelLoadError

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, as the file's header describes it."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


def read_tensors(directory: Path, architecture: Architecture) -> dict[str, StoredTensor]:
    """Return the tensors of a model by the encoder's names for them.

    Raises:
        ModelLoadError: a file is missing or malformed, or two tensors have the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(directory):
        for stored in read_header(file):
            name = architecture.tensor_name(stored.key)
            if name in tensors:
                raise ModelLoadError(
                    f"{file}: tensors {stored.key!r} and {tensors[name].key!r} are both the model's {name!r}"
                )
            tensors[name] = stored
    return tensors


def read_header(file: Path) -> list[StoredTensor]:
    """Return the tensors that a safetensors file's header lists.

    Raises:
        ModelLoadError: the file cannot be read, or safetensors refuses it.
    """
    try:
        with safe_open(file, framework="numpy") as content:
            slices = {key: content.get_slice(key) for key in content.keys()}  # noqa: SIM118 - not a mapping
            return [StoredTensor(file, key, tuple(s.get_shape()), s.get_dtype()) for key, s in slices.items()]
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{file} is not a readable safetensors file ({error}); fetch the model again") from error


def float_type(tensors: Iterable[StoredTensor]) -> str:
    """Return the floating type that most tensors have: "float32", "float16" or "bfloat16".

    Raises:
        ModelLoadError: none has such a type.
    """
    counts = Counter(_FLOATS[tensor.dtype] for tensor in tensors if tensor.dtype in _FLOATS)
    if not counts:
        raise ModelLoadError(f"no tensor is of a floating type that is supported ({', '.join(_FLOATS)})")
    return counts.most_common(1)[0][0]


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if is_file(index):
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ModelLoadError(f"{index}: weight_map must map tensors to file names")
        names = set(weight_map.values())
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelLoadError(f"{index}: {name!r} is not the name of a safetensors file in this folder")
        if not is_file(directory / name):
            raise ModelLoadError(f"{directory / name} is missing; fetch the model again")
    return sorted(directory / name for name in names)
