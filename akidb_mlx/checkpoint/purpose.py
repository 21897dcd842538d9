"""Refusal of models that are not embedding models, or that are more than their weights."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.checkpoint.tokenization.frame import appends_end_token
from akidb_mlx.errors import ModelLoadError

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.checkpoint import Checkpoint

# Tensors of heads, by the start of their names, and the models that have them.
HEADS = {
    "lm_head.": "a language model",
    "cls.": "a model of masked words or of sentence pairs",
    "vocab_transform.": "a model of masked words",
    "vocab_layer_norm.": "a model of masked words",
    "vocab_projector.": "a model of masked words",
    "pre_classifier.": "a classifier or a cross-encoder (reranker)",
    "classifier.": "a classifier or a cross-encoder (reranker)",
    "score.": "a classifier or a cross-encoder (reranker)",
    "qa_outputs.": "a model that answers questions",
}
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# The entries of auto_map that stand for code which computes token vectors; the others are of heads.
_CODE = ("AutoConfig", "AutoModel", "AutoTokenizer")
_FILES = "modules.json, 1_Pooling/config.json or config_sentence_transformers.json"


def check_additions(directory: Path, config: Mapping[str, Any], architecture: Architecture) -> None:
    """Refuse a model that is more than its weights: an adapter or code beside them.

    Raises:
        ModelLoadError: there is one.
    """
    for name in _ADAPTERS:
        if is_file(directory / name):
            raise ModelLoadError(
                f"{directory / name} is an adapter (PEFT), which is not applied; merge it into the weights with "
                "merge_and_unload() and save the model, or remove it to use the weights without it"
            )
    code = config.get("auto_map")
    if isinstance(code, dict):
        asked = (name for name in _CODE if code.get(name) and not _is_known(code[name], config, architecture))
        entry = next((f"{name} = {reprlib.repr(code[name])}" for name in asked), None)
    else:
        entry = reprlib.repr(code) if code else None
    if entry is not None:
        raise ModelLoadError(
            f"{directory / 'config.json'}: auto_map asks for code of the model's own ({entry}), and no code of a model "
            "is run here; remove the key if the model computes the same without it"
        )


def _is_known(code: Any, config: Mapping[str, Any], architecture: Architecture) -> bool:
    """Return whether the encoder computes what a class of the model's own code does."""
    key = architecture.known_code.get(code) if isinstance(code, str) else None
    return key is not None and config.get(key) is True


def check_heads(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a model that has a head: it was made for another task, and its token vectors too.

    Raises:
        ModelLoadError: a tensor belongs to one.
    """
    for name, tensor in tensors.items():
        kind = next((kind for start, kind in HEADS.items() if name.startswith(start)), None)
        if kind is not None:
            raise ModelLoadError(
                f"{tensor.file}: {cut(tensor.key)} belongs to the head of {kind}, so this is not an embedding model; "
                "if its token vectors are to be pooled nevertheless, load and save it with sentence-transformers, "
                "which leaves the head out"
            )


def check_is_embedder(checkpoint: Checkpoint) -> None:
    """Refuse a causal model without any sign that it is an embedding model and no chat model or reranker.

    Raises:
        ModelLoadError: neither its files nor its tokenizer show it, or the tokenizer is missing or malformed.
    """
    directory, architecture = checkpoint.directory, checkpoint.architecture
    token = architecture.final_token
    if token is None or checkpoint.stated_embedder or appends_end_token(directory, token):
        return
    raise ModelLoadError(
        f"{directory} does not say that it is an embedding model: it has none of {_FILES}, and its tokenizer does not "
        f"end every text with {token}, so it may be a chat model or a reranker; add the files from the original model "
        f"({architecture.original}), or insist with Settings(allow_unstated_pooling=True) or, in the environment, "
        "AKIDB_ALLOW_UNSTATED_POOLING=1"
    )
