"""sentence-transformers' files: the modules of a model, each with a configuration of its own."""

from __future__ import annotations

import logging
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures.architecture import Architecture, PoolingMode
from akidb_mlx.checkpoint.files import is_file, read_json, read_json_value, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut, is_empty
from akidb_mlx.checkpoint.module_keys import (
    LOADING_ARGUMENTS,
    MODEL_KEYS,
    MODULE_KEYS,
    NORMALIZE_KEYS,
    POOLING_FLAGS,
    POOLING_KEYS,
    TEXT_MODALITY_KEYS,
    TRANSFORMER_FILES,
    TRANSFORMER_KEYS,
)
from akidb_mlx.errors import ModelLoadError

logger = logging.getLogger(__name__)

_LIBRARY = "sentence_transformers."
_POOLING_MODES: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


@dataclass(frozen=True)
class Modules:
    """The folders that modules.json names; `listed` is False where the file is missing."""

    listed: bool
    pooling: Path
    dense: tuple[Path, ...]


def read_modules(directory: Path) -> Modules:
    """Read modules.json, and the configuration of a Normalize module.

    Raises:
        ModelLoadError: it lists something other than a Transformer in the model's own folder, a Pooling, any Dense and
            perhaps a Normalize, or a folder outside.
    """
    path = directory / "modules.json"
    if not is_file(path):
        return Modules(False, directory / "1_Pooling", ())
    listed = list_modules(path)
    kinds, folders = [kind for kind, _ in listed], [folder for _, folder in listed]
    last = len(kinds) - 1 if kinds[-1:] == ["Normalize"] else len(kinds)
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in kinds[2:last]):
        raise ModelLoadError(
            f"{path} lists {cut(', '.join(kinds)) or 'nothing'}; supported: Transformer, Pooling, any Dense, Normalize"
        )
    if folders[0].parts:
        raise ModelLoadError(
            f"{path}: the Transformer lies in the folder {cut(str(folders[0]))!r}, as in sentence-transformers' old "
            "layout, and is read from the model directory itself only; load the model with a recent "
            "sentence-transformers and save it again"
        )
    return Modules(True, directory / folders[1], tuple(directory / folder for folder in folders[2:last]))


def list_modules(path: Path) -> list[tuple[str, Path]]:
    """Return the name and the folder of each module that modules.json lists, in order.

    Raises:
        ModelLoadError: it is malformed, names a folder outside, or a Normalize that does something else.
    """
    entries = read_json_value(path)
    try:
        types = [str(entry["type"]) for entry in entries]
        folders = [Path(str(entry["path"])) for entry in entries]
    except (TypeError, KeyError) as error:
        raise ModelLoadError(f"{path} must be a list of objects with `type` and `path`") from error
    for number, entry in enumerate(entries):
        MODULE_KEYS.check(path, entry, f"{number}.")
    kinds = [name.rpartition(".")[2] if name.startswith(_LIBRARY) else name for name in types]
    for kind, folder in zip(kinds, folders, strict=True):
        if folder.is_absolute() or ".." in folder.parts:
            raise ModelLoadError(f"{path}: {cut(str(folder))!r} is not a folder inside the model directory")
        if kind == "Normalize":
            normalize = path.parent / folder / "config.json"
            NORMALIZE_KEYS.check(normalize, read_optional_json(normalize))
    return list(zip(kinds, folders, strict=True))


def read_pooling(
    directory: Path, model_type: str, architecture: Architecture, modules: Modules
) -> tuple[PoolingMode, str]:
    """Return how token vectors become one vector, and the file or rule that decides it.

    Raises:
        ModelLoadError: neither the checkpoint nor the architecture says it, or it is not supported.
    """
    path = modules.pooling / "config.json"
    name = path.relative_to(directory)
    if not is_file(path):
        if architecture.pooling is None:
            raise ModelLoadError(
                f"{directory} does not say how to pool ({name} is missing) and {model_type} "
                "models differ in it; add the file from the original model"
            )
        return architecture.pooling, f"the {model_type} architecture ({name} is missing)"
    config = read_json(path)
    POOLING_KEYS.check(path, config)
    flags = {flag: config[flag] for flag in POOLING_FLAGS if flag in config}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise ModelLoadError(f"{path}: {flag} must be true or false, found {reprlib.repr(value)}")
    named = config.get("pooling_mode", [mode for flag, mode in POOLING_FLAGS.items() if flags.get(flag)])
    modes = [named] if isinstance(named, str) else named
    single = isinstance(modes, list) and len(modes) == 1 and isinstance(modes[0], str)
    if not single or modes[0] not in _POOLING_MODES:
        raise ModelLoadError(
            f"{path}: pooling {reprlib.repr(modes)} is not supported; exactly one of {', '.join(_POOLING_MODES)} is"
        )
    pooling = _POOLING_MODES[modes[0]]
    if not modules.listed and architecture.pooling is None and pooling != "mean":
        logger.warning(
            "%s: modules.json is missing; texts are pooled as %s says (%s), where sentence-transformers would take the "
            "mean",
            directory,
            name,
            pooling,
        )
    return pooling, str(name)


def read_transformer(directory: Path) -> dict[str, Any]:
    """Return the configuration of the Transformer module: the first file of it that is there and not empty.

    Raises:
        ModelLoadError: it asks for something that is not supported.
    """
    for name in TRANSFORMER_FILES:
        path = directory / name
        config = read_optional_json(path)
        if config:
            break
    else:
        return {}
    TRANSFORMER_KEYS.check(path, config)
    modalities = config.get("modality_config")
    if modalities is not None:
        text = modalities.get("text") if isinstance(modalities, dict) else None
        if not isinstance(text, dict):
            raise ModelLoadError(f"{path}: modality_config has no `text`: the model does not take texts")
        TEXT_MODALITY_KEYS.check(path, text, "modality_config.text.")
    for key in ("model", "processor", "tokenizer", "config"):
        for name in (f"{key}_args", f"{key}_kwargs"):
            arguments = config.get(name)
            if isinstance(arguments, dict):
                LOADING_ARGUMENTS.check(path, arguments, f"{name}.")
            elif not is_empty(arguments):
                raise ModelLoadError(f"{path}: {name} must be an object, found {reprlib.repr(arguments)}")
    lower_case = config.get("do_lower_case")
    if lower_case is not None and not isinstance(lower_case, bool):
        raise ModelLoadError(f"{path}: do_lower_case must be true or false, found {reprlib.repr(lower_case)}")
    return config


def read_model_config(directory: Path) -> dict[str, Any]:
    """Return config_sentence_transformers.json, checked.

    Raises:
        ModelLoadError: the model is of another kind, or asks for something that is not supported.
    """
    path = directory / "config_sentence_transformers.json"
    config = read_optional_json(path)
    MODEL_KEYS.check(path, config)
    prompts = config.get("prompts")
    if prompts is not None and not (
        isinstance(prompts, dict) and all(isinstance(prompt, str) for prompt in prompts.values())
    ):
        raise ModelLoadError(f"{path}: prompts must map names to strings, found {reprlib.repr(prompts)}")
    size = config.get("truncate_dim")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ModelLoadError(f"{path}: truncate_dim must be an integer of 1 or more, found {reprlib.repr(size)}")
    return config
