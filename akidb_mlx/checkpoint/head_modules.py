"""The files of the modules after the encoder: Pooling, Dense, LayerNorm, Normalize."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.head import (
    DENSE_ACTIVATIONS,
    Dense,
    Head,
    HeadModule,
    LayerNorm,
    Normalize,
    Pooling,
    PoolingMode,
)
from akidb_mlx.checkpoint.known_keys import KnownKeys, cut
from akidb_mlx.checkpoint.module_keys import (
    DENSE_KEYS,
    DROPOUT_KEYS,
    LAYER_NORM_KEYS,
    NORMALIZE_KEYS,
    POOLING_FLAGS,
    POOLING_KEYS,
    SCORE_DENSE_KEYS,
)
from akidb_mlx.checkpoint.modules import Module, ModuleList
from akidb_mlx.checkpoint.tensors import StoredTensor, read_header
from akidb_mlx.errors import ModelLoadError

logger = logging.getLogger(__name__)

# sentence-transformers' names of pooling modes.
_POOLING_MODES: dict[str, PoolingMode] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "max": "max",
    "weightedmean": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
# sentence-transformers takes Tanh where its own file names no activation.
_DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"


class HeadReader:
    """Reads the heads of a model's routes; a module that several routes share is read once.

    Attributes:
        tensors: those of the modules that have files of their own, by the names that their modules use.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        architecture: Architecture,
        modules: ModuleList,
        main: Mapping[str, StoredTensor],
        scores: Path | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            directory: the model directory.
            config: the content of config.json.
            architecture: its rules.
            modules: the modules of each route.
            main: the tensors of the main file, where conversions put Dense layers as `dense.N`. They may leave a
                modules.json that names folders which no longer exist, so the main file takes precedence.
            scores: the folder of the Dense module whose output is a reranker's scores.
        """
        self._directory = directory
        self._config = config
        self._architecture = architecture
        self._modules = modules
        self._main = main
        self._scores = scores
        self._read: dict[Path, HeadModule] = {}
        self._dense: list[Path | None] = []
        self.tensors: dict[str, StoredTensor] = {}

    def read(self, chain: Sequence[Module]) -> Head:
        """Return the head of a route.

        Raises:
            ModelLoadError: a file is missing or malformed, or asks for something that is not supported; or neither the
                checkpoint nor the architecture says how to pool.
        """
        pooling = self._read_pooling(chain[1].folder / "config.json")
        if not self._modules.listed:
            return Head(pooling, tuple(self._read_dense(None) for _ in range(self._architecture.dense_layers)))
        found = [self._read_module(module) for module in chain[2:]]
        modules = [module for module in found if module is not None]
        while modules and isinstance(modules[-1], Normalize):
            modules.pop()  # each call chooses whether its vectors are normalised
        return Head(pooling, tuple(modules))

    def _read_pooling(self, path: Path) -> Pooling:
        rule, name = self._architecture.pooling, str(path.relative_to(self._directory))
        model_type = self._config["model_type"]
        if not is_file(path):
            if rule is None:
                raise ModelLoadError(
                    f"{self._directory} does not say how to pool ({name} is missing) and {model_type} models differ in "
                    "it; add the file from the original model"
                )
            return Pooling((rule,), source=f"the {model_type} architecture ({name} is missing)")
        pooling = replace(read_pooling(path), source=name)
        if not self._modules.listed and rule is None and pooling.modes != ("mean",):
            logger.warning(
                "%s: modules.json is missing; texts are pooled as %s says (%s), where sentence-transformers would take "
                "the mean",
                self._directory,
                name,
                pooling,
            )
        return pooling

    def _read_module(self, module: Module) -> HeadModule | None:
        folder = module.folder
        if module.kind == "Dropout":
            DROPOUT_KEYS.check(folder / "config.json", read_optional_json(folder / "config.json"))
            return None
        if folder not in self._read:
            if module.kind == "Normalize":
                NORMALIZE_KEYS.check(folder / "config.json", read_optional_json(folder / "config.json"))
                self._read[folder] = Normalize()
            elif module.kind == "LayerNorm":
                self._read[folder] = self._read_layer_norm(folder)
            else:
                self._read[folder] = self._read_dense(folder)
        return self._read[folder]

    def _read_layer_norm(self, folder: Path) -> LayerNorm:
        path = folder / "config.json"
        LAYER_NORM_KEYS.check(path, read_json(path))
        name = f"norm.{len(self._read)}"
        self._add(folder / "model.safetensors", "norm.", name)
        return LayerNorm(name)

    def _read_dense(self, folder: Path | None) -> Dense:
        number = len(self._dense)
        self._dense.append(folder)
        name = f"dense.{number}"
        if f"{name}.weight" not in self._main:
            weights = folder / "model.safetensors" if folder else None
            if weights is None or not is_file(weights):
                raise ModelLoadError(self._describe_missing(name))
            self._add(weights, "linear.", name)
        stored = {**self._main, **self.tensors}
        weight = stored.get(f"{name}.weight")
        if weight is None or len(weight.shape) != 2:
            raise ModelLoadError(f"{folder or self._directory}: {name}.weight is missing, or is not a matrix")
        path = folder / "config.json" if folder else None
        if path is not None and is_file(path):
            return read_dense_config(path, name, stored, SCORE_DENSE_KEYS if folder == self._scores else DENSE_KEYS)
        if number >= self._architecture.dense_layers:
            raise ModelLoadError(f"{path} is missing: the activation of {name} is unknown")
        return Dense(name, weight.shape[0], bias=f"{name}.bias" in stored)

    def _add(self, file: Path, part: str, name: str) -> None:
        """Take up a module's tensors, of which those of its main part lose the name of that."""
        for tensor in read_header(file):
            self.tensors[f"{name}.{tensor.key.removeprefix(part)}"] = tensor

    def _describe_missing(self, layer: str) -> str:
        """Say that a layer is missing, and how to bring the layers back."""
        directory = self._directory
        fault = f"{directory}: {layer}.weight is missing: neither in the main file nor in a Dense folder of its own"
        source = str(self._config.get("_name_or_path"))
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", source):
            if self._architecture.original is None:
                return f"{fault}; fetch the model again"
            source = self._architecture.original
        chains = self._modules.chains.values()
        folders = dict.fromkeys(module.folder for chain in chains for module in chain if module.kind == "Dense")
        names = [str(folder.relative_to(directory)) for folder in folders]
        names = names or [f"{number + 2}_Dense" for number in range(self._architecture.dense_layers)]
        files = ["modules.json", *(f"{one}/{name}" for one in names for name in ("config.json", "model.safetensors"))]
        return (
            f"{fault}. mlx-lm's conversions leave the Dense layers out; bring them back from the original: "
            f"hf download {source} {' '.join(files)} 1_Pooling/config.json --local-dir {directory}"
        )


def read_pooling(path: Path) -> Pooling:
    """Read the configuration of a Pooling module.

    Raises:
        ModelLoadError: it is malformed, or asks for something that is not supported.
    """
    config = read_json(path)
    POOLING_KEYS.check(path, config)
    flags = {flag: config[flag] for flag in (*POOLING_FLAGS, "include_prompt") if flag in config}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise ModelLoadError(f"{path}: {flag} must be true or false, found {reprlib.repr(value)}")
    named = config.get("pooling_mode", [mode for flag, mode in POOLING_FLAGS.items() if flags.get(flag)])
    modes = [named] if isinstance(named, str) else named
    if not (isinstance(modes, list) and modes and all(isinstance(m, str) and m in _POOLING_MODES for m in modes)):
        raise ModelLoadError(
            f"{path}: pooling {reprlib.repr(modes)} is not supported; one or more of {', '.join(_POOLING_MODES)} are"
        )
    return Pooling(tuple(_POOLING_MODES[mode] for mode in modes), flags.get("include_prompt", True))


def read_dense_config(path: Path, name: str, stored: Mapping[str, StoredTensor], keys: KnownKeys = DENSE_KEYS) -> Dense:
    """Return the layer that a file describes, checked against its tensors.

    Args:
        path: the file.
        name: the beginning of the tensors' names.
        stored: the tensors.
        keys: those that the file may hold.

    Raises:
        ModelLoadError: they do not fit, or the file asks for something that is not supported.
    """
    config = read_json(path)
    keys.check(path, config)
    rows = stored[f"{name}.weight"].shape[0]
    outputs = config.get("out_features", rows)
    if outputs != rows:
        raise ModelLoadError(f"{path}: out_features is {reprlib.repr(outputs)} and {name}.weight has {rows} rows")
    bias = f"{name}.bias" in stored
    if config.get("bias", bias) is not bias:
        raise ModelLoadError(f"{path}: bias is {reprlib.repr(config['bias'])}, and {name}.bias says otherwise")
    residual = config.get("use_residual", False)
    if not isinstance(residual, bool):
        raise ModelLoadError(f"{path}: use_residual must be true or false, found {reprlib.repr(residual)}")
    activation = str(config.get("activation_function", _DEFAULT_ACTIVATION))
    package, _, kind = activation.rpartition(".")
    if kind not in DENSE_ACTIVATIONS or not f"{package}.".startswith("torch.nn."):
        raise ModelLoadError(
            f"{path}: activation {cut(activation)} is not supported ({', '.join(DENSE_ACTIVATIONS)} of torch.nn)"
        )
    return Dense(name, rows, kind, bias, residual)
