"""sentence-transformers' files about the whole model and its Transformer module."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.files import read_optional_json
from akidb_mlx.checkpoint.known_keys import KnownKeys, is_empty
from akidb_mlx.checkpoint.module_keys import (
    LOADING_ARGUMENTS,
    MODEL_KEYS,
    TEXT_MODALITY_KEYS,
    TRANSFORMER_FILES,
    TRANSFORMER_KEYS,
)
from akidb_mlx.checkpoint.purpose import check_kind
from akidb_mlx.errors import ModelLoadError


def read_transformer(
    directory: Path, keys: KnownKeys = TRANSFORMER_KEYS, text_keys: KnownKeys = TEXT_MODALITY_KEYS
) -> dict[str, Any]:
    """Return the configuration of the Transformer module: the first file of it that is there and not empty.

    Args:
        directory: the folder of the module.
        keys: those that the file may hold.
        text_keys: those of its `modality_config.text`.

    Raises:
        ModelLoadError: it asks for something that is not supported.
    """
    path, config = find_transformer(directory)
    keys.check(path, config)
    modalities = config.get("modality_config")
    if modalities is not None:
        text = modalities.get("text") if isinstance(modalities, dict) else None
        if not isinstance(text, dict):
            raise ModelLoadError(f"{path}: modality_config has no `text`: the model does not take texts")
        text_keys.check(path, text, "modality_config.text.")
    check_transformer(path, config)
    return config


def find_transformer(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of the Transformer module that counts, and its content: the first that is there and not empty."""
    found = ((directory / name, read_optional_json(directory / name)) for name in TRANSFORMER_FILES)
    return next(((path, config) for path, config in found if config), (directory / TRANSFORMER_FILES[0], {}))


def check_transformer(path: Path, config: Mapping[str, Any]) -> None:
    """Check the keys of a Transformer module that mean the same in every kind of model.

    Raises:
        ModelLoadError: a value is malformed, or asks for something that is not supported.
    """
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


def read_model_config(directory: Path) -> dict[str, Any]:
    """Return config_sentence_transformers.json, checked.

    Raises:
        ModelLoadError: the model is of another kind, or asks for something that is not supported.
    """
    path = directory / "config_sentence_transformers.json"
    config = read_optional_json(path)
    check_kind(path, config, "SentenceTransformer")
    MODEL_KEYS.check(path, config)
    check_prompts(path, config)
    size = config.get("truncate_dim")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ModelLoadError(f"{path}: truncate_dim must be an integer of 1 or more, found {reprlib.repr(size)}")
    return config


def check_prompts(path: Path, config: Mapping[str, Any]) -> None:
    """Check the prompts in config_sentence_transformers.json.

    Raises:
        ModelLoadError: they do not map names to strings.
    """
    prompts = config.get("prompts")
    if prompts is not None and not (
        isinstance(prompts, dict) and all(isinstance(prompt, str) for prompt in prompts.values())
    ):
        raise ModelLoadError(f"{path}: prompts must map names to strings, found {reprlib.repr(prompts)}")
