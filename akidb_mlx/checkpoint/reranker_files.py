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
    TEXT_MODALITY_KEYS,
)
from akidb_mlx.checkpoint.modules import AFTER_POOLING, Module, list_modules
from akidb_mlx.checkpoint.purpose import check_kind
from akidb_mlx.checkpoint.sentence_config import check_prompts, check_transformer, find_transformer
from akidb_mlx.errors import ModelLoadError

# What a Transformer module calls its output, by its task.
_OUTPUTS = {
    "sequence-classification": "scores",
    "text-generation": "causal_logits",
    "feature-extraction": "token_embeddings",
}


@dataclass(frozen=True)
class RerankerFiles:
    """The content of sentence-transformers' files; most of it is empty where there is no modules.json.

    Attributes:
        answers: whether the logits of a language model are compared.
        listed: whether modules.json is there.
        transformer: the configuration of the Transformer module.
        model: config_sentence_transformers.json.
        tokens: the tokens that a LogitScore module names.
        modules: a Transformer, a Pooling and the modules after it that make the scores; empty in another reranker.
    """

    answers: bool
    listed: bool = False
    transformer: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[int, ...] | None = None
    modules: tuple[Module, ...] = ()


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
    task = _find_task(kinds)
    if task is None or modules[0].folder != directory:
        raise ModelLoadError(
            f"{path} lists {cut(', '.join(kinds)) or 'nothing'}; supported in a reranker: Transformer, in the model "
            "directory itself, alone, or with LogitScore, or with Pooling and modules of which the last is Dense"
        )
    transformer = _read_transformer(directory, task)
    if task == "text-generation":
        return RerankerFiles(True, True, transformer, model, _read_tokens(modules[1].folder / "config.json"))
    if task == "feature-extraction":
        _check_scores(modules[-1].folder / "config.json")
        return RerankerFiles(False, True, transformer, model, modules=modules)
    return RerankerFiles(False, True, transformer, model)


def _find_task(kinds: tuple[str, ...]) -> str | None:
    """Return the task of the Transformer module by the modules after it; None where they are not a reranker's."""
    if kinds == ("Transformer",):
        return "sequence-classification"
    if kinds == ("Transformer", "LogitScore"):
        return "text-generation"
    pooled = kinds[:2] == ("Transformer", "Pooling") and kinds[2:] and all(kind in AFTER_POOLING for kind in kinds[2:])
    return "feature-extraction" if pooled and kinds[-1] == "Dense" else None


def _check_scores(path: Path) -> None:
    """Refuse a last module that makes something else than scores."""
    output = read_json(path).get("module_output_name")
    if output != "scores":
        raise ModelLoadError(
            f"{path}: the last module of a reranker must have module_output_name 'scores', found {reprlib.repr(output)}"
        )


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
    if stated != task or output not in (None, _OUTPUTS[task]):
        raise ModelLoadError(
            f"{path}: transformer_task {reprlib.repr(stated)} with module_output_name {reprlib.repr(output)} is not "
            f"supported; {task!r} is"
        )
    check_transformer(path, config)
    modalities = config.get("modality_config")
    _check_object(path, "modality_config", modalities)
    if "message" in (modalities or {}) and task != "text-generation":
        raise ModelLoadError(f"{path}: pairs in a chat template are supported for language models only")
    known = TEXT_MODALITY_KEYS if task == "feature-extraction" else RERANKER_MODALITY_KEYS
    for name, modality in (modalities or {}).items():
        if name in ("text", "message"):
            _check_object(path, f"modality_config.{name}", modality)
            known.check(path, modality or {}, f"modality_config.{name}.")
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
