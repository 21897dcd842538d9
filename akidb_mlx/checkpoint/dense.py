"""The Dense layers that follow the pooling in some models."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.files import is_file, read_json
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import DENSE_KEYS
from akidb_mlx.checkpoint.modules import Modules
from akidb_mlx.checkpoint.tensors import StoredTensor, read_header
from akidb_mlx.errors import ModelLoadError

DenseActivation = Literal["identity", "tanh"]

_ACTIVATIONS: dict[str, DenseActivation] = {"Identity": "identity", "Tanh": "tanh"}
# sentence-transformers takes Tanh where its own file names no activation.
_DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"


def read_dense(
    directory: Path,
    config: Mapping[str, Any],
    architecture: Architecture,
    modules: Modules,
    tensors: dict[str, StoredTensor],
) -> tuple[tuple[DenseActivation, ...], dict[str, StoredTensor]]:
    """Return the Dense layers' activations, and the tensors of those that are in folders of their own.

    Conversions put the layers into the main file as `dense.N` and may leave a modules.json that names folders which no
    longer exist, so the main file takes precedence.

    Args:
        directory: the model directory.
        config: the content of config.json.
        architecture: its rules.
        modules: the folders of the layers.
        tensors: those of the main file.

    Raises:
        ModelLoadError: a layer is missing, or asks for something that is not supported.
    """
    count = len(modules.dense) if modules.listed else architecture.dense_layers
    activations: list[DenseActivation] = []
    found: dict[str, StoredTensor] = {}
    for number in range(count):
        layer = f"dense.{number}"
        folder = modules.dense[number] if modules.listed else None
        stored = tensors
        if f"{layer}.weight" not in tensors:
            weights = folder / "model.safetensors" if folder else None
            if weights is None or not is_file(weights):
                raise ModelLoadError(_describe_missing(directory, config, architecture, modules, layer))
            stored = {tensor.key.replace("linear.", f"{layer}.", 1): tensor for tensor in read_header(weights)}
            found |= stored
        weight = stored.get(f"{layer}.weight")
        if weight is None or len(weight.shape) != 2:
            raise ModelLoadError(f"{folder or directory}: {layer}.weight is missing, or is not a matrix")
        path = folder / "config.json" if folder else None
        if path is not None and is_file(path):
            activations.append(_read_config(path, layer, stored))
        elif number < architecture.dense_layers:
            activations.append("identity")
        else:
            raise ModelLoadError(f"{path} is missing: the activation of {layer} is unknown")
    return tuple(activations), found


def _read_config(path: Path, layer: str, stored: Mapping[str, StoredTensor]) -> DenseActivation:
    """Return the activation in a layer's file, and check the rest of it."""
    config = read_json(path)
    DENSE_KEYS.check(path, config)
    rows = stored[f"{layer}.weight"].shape[0]
    outputs = config.get("out_features", rows)
    if outputs != rows:
        raise ModelLoadError(f"{path}: out_features is {reprlib.repr(outputs)} and {layer}.weight has {rows} rows")
    if config.get("bias", True) is not (f"{layer}.bias" in stored) and "bias" in config:
        raise ModelLoadError(f"{path}: bias is {reprlib.repr(config['bias'])}, and {layer}.bias says otherwise")
    name = str(config.get("activation_function", _DEFAULT_ACTIVATION))
    package, _, kind = name.rpartition(".")
    if kind not in _ACTIVATIONS or not f"{package}.".startswith("torch.nn."):
        raise ModelLoadError(f"{path}: activation {cut(name)} is not supported ({', '.join(_ACTIVATIONS)} of torch.nn)")
    return _ACTIVATIONS[kind]


def _describe_missing(
    directory: Path, config: Mapping[str, Any], architecture: Architecture, modules: Modules, layer: str
) -> str:
    """Say that a layer is missing, and how to bring the layers back."""
    fault = f"{directory}: {layer}.weight is missing: neither in the main file nor in a Dense folder of its own"
    source = str(config.get("_name_or_path"))
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", source):
        if architecture.original is None:
            return f"{fault}; fetch the model again"
        source = architecture.original
    folders = [str(folder.relative_to(directory)) for folder in modules.dense]
    folders = folders or [f"{number + 2}_Dense" for number in range(architecture.dense_layers)]
    files = [
        "modules.json",
        *(f"{folder}/{name}" for folder in folders for name in ("config.json", "model.safetensors")),
    ]
    return (
        f"{fault}. mlx-lm's conversions leave the Dense layers out; bring them back from the original: "
        f"hf download {source} {' '.join(files)} 1_Pooling/config.json --local-dir {directory}"
    )
