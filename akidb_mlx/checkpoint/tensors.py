"""The tensors of a checkpoint by name, shape and type, read from the headers of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.errors import ModelLoadError
from model_cache.errors import ModelCacheError
from model_cache.files import weight_files

# The endings of the files in which other programs keep weights.
_OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz"}
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
                both = f"{cut(stored.key)!r} and {cut(tensors[name].key)!r}"
                raise ModelLoadError(f"{file}: tensors {both} are both the model's {cut(name)!r}")
            tensors[name] = stored
    return tensors


def has_weights(directory: Path) -> bool:
    """Return whether a safetensors file with weights lies in a directory."""
    return any(directory.glob("*.safetensors"))


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


def read_module_header(folder: Path) -> list[StoredTensor]:
    """Return the tensors of a module that has a folder of its own.

    Raises:
        ModelLoadError: its file is missing, cannot be read, or safetensors refuses it.
    """
    file = folder / "model.safetensors"
    if not is_file(file):
        raise ModelLoadError(
            f"{cut(str(file), 200)} is missing: weights are read from safetensors files only, which cannot hold code"
        )
    return read_header(file)


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
    try:
        names = weight_files(directory)
    except (ModelCacheError, OSError) as error:
        raise ModelLoadError(f"the weights in {directory} cannot be read: {error}") from error
    for name in names:
        if not is_file(directory / name):
            raise ModelLoadError(f"{directory / name} is missing; {_instead(directory)}")
    return [directory / name for name in names]


def _instead(directory: Path) -> str:
    """Say what there is in place of weights, and what to do."""
    others = sorted(path.name for path in directory.iterdir() if path.suffix in _OTHER_WEIGHTS)
    if not others:
        return "fetch the model again"
    return (
        f"found {cut(', '.join(others))}, but weights are read from safetensors files only, which cannot hold code; "
        "load the model with transformers and save it again, or choose a revision that has them"
    )
