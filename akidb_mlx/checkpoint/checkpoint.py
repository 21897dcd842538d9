"""The contents of a model directory, read from its files before anything is loaded.

The checkpoint's own files take precedence over the architecture's documented rules; a checkpoint is refused where both
are silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from akidb_mlx.checkpoint.architectures import ARCHITECTURES, Architecture, PoolingMode
from akidb_mlx.checkpoint.files import read_json, read_json_value
from akidb_mlx.checkpoint.quantization import QuantizationConfig, read_quantization
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, read_header, read_tensors
from akidb_mlx.errors import ModelLoadError

DenseActivation = Literal["identity", "tanh"]

# The pooling modes of sentence-transformers, in its older files (a flag each) and in its newer ones (a name).
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_MODES: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_DENSE_ACTIVATIONS: dict[str, DenseActivation] = {"Identity": "identity", "Tanh": "tanh"}


@dataclass(frozen=True)
class Checkpoint:
    """The description of a model, from the files of its directory.

    Attributes:
        directory: the model directory.
        model_type: `model_type` in config.json; a key of `ARCHITECTURES`.
        config: the content of config.json.
        tensors: every stored tensor by the encoder's name for it; Dense layers are `dense.0`, `dense.1`, …
        quantization: the packing of the layers that have scales.
        dtype: the floating type that most tensors are stored in.
        pooling: how token vectors become one vector.
        pooling_source: the file or rule that decided the pooling, for a person.
        dense_activations: one for each Dense layer after the pooling.
        prompts: named prompts.
        max_tokens: most tokens of a text that the model reads, special tokens included.
        lower_case: whether texts are lower-cased before the tokenizer's own normalisation.
    """

    directory: Path
    model_type: str
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    quantization: QuantizationConfig
    dtype: str
    pooling: PoolingMode
    pooling_source: str
    dense_activations: tuple[DenseActivation, ...]
    prompts: dict[str, str]
    max_tokens: int
    lower_case: bool

    @property
    def architecture(self) -> Architecture:
        """Return the documented rules of this model type."""
        return ARCHITECTURES[self.model_type]

    @property
    def hidden_size(self) -> int:
        """Return the size of a token's vector between layers; 0, which no encoder takes, where config.json has none."""
        size = self.config.get("hidden_size", self.config.get("dim"))
        return size if isinstance(size, int) else 0

    @property
    def quantization_summary(self) -> str | None:
        """Describe how the quantised layers are packed; None where no layer is quantised."""
        layers = {name.removesuffix(".scales") for name in self.tensors if name.endswith(".scales")}
        return "; ".join(sorted({str(self.quantization.of(layer)) for layer in layers})) or None


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a model directory's configuration and tensor headers. Nothing from it is executed.

    Raises:
        ModelLoadError: a file is missing or malformed, or asks for something that is not supported.
    """
    config_path = directory / "config.json"
    config = read_json(config_path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ModelLoadError(f"{config_path}: model_type {model_type!r} is not supported ({', '.join(ARCHITECTURES)})")
    architecture = ARCHITECTURES[model_type]
    modules = _read_modules(directory)
    pooling, pooling_source = _read_pooling(directory, model_type, modules)
    tensors = read_tensors(directory, architecture)
    dtype = float_type(tensors.values())
    dense_activations, dense_tensors = _read_dense(directory, architecture, modules, tensors)
    transformer = _read_optional(directory / "sentence_bert_config.json")
    return Checkpoint(
        directory=directory,
        model_type=model_type,
        config=config,
        tensors=tensors | dense_tensors,
        quantization=read_quantization(config_path, config, architecture),
        dtype=dtype,
        pooling=pooling,
        pooling_source=pooling_source,
        dense_activations=dense_activations,
        prompts=_read_prompts(directory / "config_sentence_transformers.json", architecture),
        max_tokens=_max_tokens(directory, config, architecture, transformer),
        lower_case=transformer.get("do_lower_case") is True,
    )


@dataclass(frozen=True)
class _Modules:
    """The folders that modules.json names; `listed` is False where the file is missing."""

    listed: bool
    pooling: Path
    dense: tuple[Path, ...]


def _read_modules(directory: Path) -> _Modules:
    path = directory / "modules.json"
    if not path.is_file():
        return _Modules(False, directory / "1_Pooling", ())
    entries = read_json_value(path)
    try:
        kinds = [str(entry["type"]).rpartition(".")[2] for entry in entries]
        folders = [Path(str(entry["path"])) for entry in entries]
    except (TypeError, KeyError) as error:
        raise ModelLoadError(f"{path} must be a list of objects with `type` and `path`") from error
    last = len(kinds) - 1 if kinds[-1:] == ["Normalize"] else len(kinds)
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in kinds[2:last]):
        raise ModelLoadError(
            f"{path} lists {', '.join(kinds) or 'nothing'}; supported: Transformer, Pooling, any Dense, Normalize"
        )
    for folder in folders:
        if folder.is_absolute() or ".." in folder.parts:
            raise ModelLoadError(f"{path}: {str(folder)!r} is not a folder inside the model directory")
    return _Modules(True, directory / folders[1], tuple(directory / folder for folder in folders[2:last]))


def _read_pooling(directory: Path, model_type: str, modules: _Modules) -> tuple[PoolingMode, str]:
    path = modules.pooling / "config.json"
    if not path.is_file():
        pooling = ARCHITECTURES[model_type].pooling
        if pooling is None:
            raise ModelLoadError(
                f"{directory} does not say how to pool ({path.relative_to(directory)} is missing) and {model_type} "
                "models differ in it; add the file from the original model"
            )
        return pooling, f"the {model_type} architecture ({path.relative_to(directory)} is missing)"
    config = read_json(path)
    if config.get("include_prompt") is False:
        raise ModelLoadError(f"{path}: leaving the prompt out of the pooling (include_prompt: false) is not supported")
    named = config.get("pooling_mode") or [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    modes = [named] if isinstance(named, str) else named
    single = isinstance(modes, list) and len(modes) == 1 and isinstance(modes[0], str)
    if not single or modes[0] not in _POOLING_MODES:
        raise ModelLoadError(
            f"{path}: pooling {modes!r} is not supported; exactly one of {', '.join(_POOLING_MODES)} is"
        )
    return _POOLING_MODES[modes[0]], str(path.relative_to(directory))


def _read_dense(
    directory: Path, architecture: Architecture, modules: _Modules, tensors: dict[str, StoredTensor]
) -> tuple[tuple[DenseActivation, ...], dict[str, StoredTensor]]:
    """Return the Dense layers' activations, and the tensors of those that are in folders of their own.

    Conversions put the layers into the main file as `dense.N` and may leave a modules.json that names folders which no
    longer exist, so the main file takes precedence.
    """
    count = len(modules.dense) if modules.listed else architecture.dense_layers
    activations: list[DenseActivation] = []
    found: dict[str, StoredTensor] = {}
    for number in range(count):
        layer = f"dense.{number}"
        folder = modules.dense[number] if modules.listed else directory
        config = _read_optional(folder / "config.json") if modules.listed else {}
        if f"{layer}.weight" not in tensors:
            weights = folder / "model.safetensors"
            if not modules.listed or not weights.is_file():
                raise ModelLoadError(
                    f"{layer}.weight is missing: neither in the main file nor in a Dense folder of its own"
                )
            for tensor in read_header(weights):
                found[tensor.key.replace("linear.", f"{layer}.", 1)] = tensor
        if config:
            # sentence-transformers takes Tanh where its own file names no activation.
            name = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
            if name not in _DENSE_ACTIVATIONS:
                raise ModelLoadError(
                    f"{folder / 'config.json'}: activation {name} is not supported ({', '.join(_DENSE_ACTIVATIONS)})"
                )
            activations.append(_DENSE_ACTIVATIONS[name])
        elif number < architecture.dense_layers:
            activations.append("identity")
        else:
            raise ModelLoadError(f"{folder / 'config.json'} is missing: the activation of {layer} is unknown")
    return tuple(activations), found


def _read_prompts(path: Path, architecture: Architecture) -> dict[str, str]:
    prompts = _read_optional(path).get("prompts")
    if prompts is None:
        return dict(architecture.prompts)
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelLoadError(f"{path}: prompts must map names to strings, found {prompts!r}")
    return prompts


def _max_tokens(
    directory: Path, config: dict[str, Any], architecture: Architecture, transformer: dict[str, Any]
) -> int:
    """Return the smallest of the limits in the files; no position beyond `max_position_embeddings` was trained."""
    tokenizer = _read_optional(directory / "tokenizer_config.json")
    stated = transformer.get("max_seq_length") or tokenizer.get("model_max_length")
    positions = config.get("max_position_embeddings")
    limits = [limit for limit in (stated, positions) if limit is not None]
    if not limits or not all(isinstance(limit, int) and limit > 0 for limit in limits):
        raise ModelLoadError(
            f"{directory} does not say how many tokens the model takes: found max_seq_length or model_max_length "
            f"{stated!r}, max_position_embeddings {positions!r}"
        )
    if positions is not None and architecture.positions_follow_padding:
        padding = config.get("pad_token_id", 1)
        if not isinstance(padding, int):
            raise ModelLoadError(f"{directory / 'config.json'}: pad_token_id must be an integer, found {padding!r}")
        limits[-1] -= padding + 1
    return int(min(limits))


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
