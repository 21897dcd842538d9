"""sentence-transformers' files in a reranker's directory: modules.json, and the configuration of each module."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut, is_empty
from akidb_mlx.checkpoint.module_keys import (
    LOGIT_SCORE_KEYS,
    PROCESSING_KEYS,
    RERANKER_MODALITY_KEYS,
    RERANKER_MODEL_KEYS,
    RERANKER_TRANSFORMER_KEYS,
)
from akidb_mlx.checkpoint.modules import list_modules
from akidb_mlx.checkpoint.purpose import check_kind
from akidb_mlx.checkpoint.sentence_config import check_prompts, check_transformer, find_transformer
from akidb_mlx.errors import ModelLoadError

# The tasks of a Transformer module, by the modules that follow it in a reranker.
_TASKS = {(): "sequence-classification", ("LogitScore",): "text-generation"}


@dataclass(frozen=True)
class RerankerFiles:
    """The content of sentence-transformers' files; most of it is empty where there is no modules.json.

    Attributes:
        answers: whether the logits of a language model are compared, and not those of a classifier.
        listed: whether modules.json is there.
        transformer: the configuration of the Transformer module.
        model: config_sentence_transformers.json.
        tokens: the tokens that a LogitScore module names.
    """

    answers: bool
    listed: bool = False
    transformer: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[int, ...] | None = None


def read_layout(directory: Path, config: Mapping[str, Any]) -> RerankerFiles:
    """Read the files, as CrossEncoder chooses among them.

    Args:
        directory: the model directory.
        config: the content of config.json.

    Raises:
        ModelLoadError: a file is malformed, not a reranker's, or asks for something that is not supported.
    """
    path = directory / "modules.json"
    if not is_file(path):
        names = config.get("architectures")
        name = names[0] if isinstance(names, list) and names else None
        return RerankerFiles(answers=isinstance(name, str) and name.endswith("ForCausalLM"))
    modules = list_modules(path)
    model = _read_model_config(directory)
    kinds = tuple(module.kind for module in modules)
    task = _TASKS.get(kinds[1:]) if kinds[:1] == ("Transformer",) else None
    if task is None or modules[0].folder != directory:
        raise ModelLoadError(
            f"{path} lists {cut(', '.join(kinds)) or 'nothing'}; supported in a reranker: Transformer, in the model "
            "directory itself, alone or with LogitScore"
        )
    transformer = _read_transformer(directory, task)
    tokens = _read_tokens(modules[1].folder / "config.json") if kinds[1:] else None
    return RerankerFiles(bool(kinds[1:]), True, transformer, model, tokens)


def _read_model_config(directory: Path) -> dict[str, Any]:
    path = directory / "config_sentence_transformers.json"
    config = {"model_type": "SentenceTransformer", **read_optional_json(path)}
    if config["model_type"] == "SentenceTransformer":
        raise ModelLoadError(
            f"{directory} is an embedding model by its modules.json, and not a reranker: use akidb_mlx.EmbeddingService"
        )
    check_kind(path, config, "CrossEncoder")
    RERANKER_MODEL_KEYS.check(path, config)
    check_prompts(path, config)
    if not isinstance(config.get("default_prompt_name"), str | None):
        raise ModelLoadError(f"{path}: default_prompt_name must be a string")
    return config


def _read_transformer(directory: Path, task: str) -> dict[str, Any]:
    path, config = find_transformer(directory)
    RERANKER_TRANSFORMER_KEYS.check(path, config)
    stated = config.get("transformer_task", "feature-extraction")
    output = config.get("module_output_name")
    if stated != task or output not in (None, "causal_logits" if task == "text-generation" else "scores"):
        raise ModelLoadError(
            f"{path}: transformer_task {reprlib.repr(stated)} with module_output_name {reprlib.repr(output)} is not "
            f"supported; {task!r} is"
        )
    check_transformer(path, config)
    modalities = config.get("modality_config")
    _check_object(path, "modality_config", modalities)
    for name, modality in (modalities or {}).items():
        if name in ("text", "message"):
            _check_object(path, f"modality_config.{name}", modality)
            RERANKER_MODALITY_KEYS.check(path, modality or {}, f"modality_config.{name}.")
    processing = config.get("processing_kwargs")
    _check_object(path, "processing_kwargs", processing)
    PROCESSING_KEYS.check(path, processing or {}, "processing_kwargs.")
    _check_object(path, "processing_kwargs.chat_template", (processing or {}).get("chat_template"))
    return config


def _check_object(path: Path, name: str, value: Any) -> None:
    if not isinstance(value, dict) and not is_empty(value):
        raise ModelLoadError(f"{path}: {name} must be an object, found {reprlib.repr(value)}")


def _read_tokens(path: Path) -> tuple[int, ...]:
    config = read_json(path)
    LOGIT_SCORE_KEYS.check(path, config)
    tokens: list[Any] = [config.get("true_token_id"), config.get("false_token_id")]
    if tokens[1] is None:
        tokens.pop()
    for token in tokens:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ModelLoadError(
                f"{path}: true_token_id and false_token_id must be tokens, found {reprlib.repr(tokens)}"
            )
    return tuple(map(int, tokens))
