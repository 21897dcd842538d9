"""Refusal of models that are not what they are loaded as, or that are more than their weights."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from akidb_mlx.checkpoint.files import is_file, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.checkpoint.tokenization.frame import appends_end_token
from akidb_mlx.errors import ModelLoadError

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.checkpoint import Checkpoint

_LANGUAGE_MODEL = "a language model"
_RERANKER = "a classifier or a cross-encoder (reranker)"
# Tensors of heads, by the start of their names, and the models that have them.
HEADS = {
    "lm_head.": _LANGUAGE_MODEL,
    "cls.": "a model of masked words or of sentence pairs",
    "vocab_transform.": "a model of masked words",
    "vocab_layer_norm.": "a model of masked words",
    "vocab_projector.": "a model of masked words",
    "head.": "a model of masked words, a classifier or a cross-encoder (reranker)",
    "decoder.": "a model of masked words",
    "pre_classifier.": _RERANKER,
    "classifier.": _RERANKER,
    "score.": _RERANKER,
    "qa_outputs.": "a model that answers questions",
}
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# The entries of auto_map that stand for code which computes token vectors; the others are of heads.
_CODE = ("AutoConfig", "AutoModel", "AutoTokenizer")
_FILES = "modules.json, 1_Pooling/config.json or config_sentence_transformers.json"
# The kinds of models by the classes of sentence-transformers and PyLate, and the classes here that load them.
_KINDS = {
    "SentenceTransformer": ("an embedding model", "EmbeddingService"),
    "CrossEncoder": ("a reranker (cross-encoder)", "Reranker"),
    "SparseEncoder": ("a sparse model", "SparseEmbedder"),
    "MultiVectorEncoder": ("a multi-vector model (ColBERT)", "MultiVectorEmbedder"),
}
_PICKLED_HEADS = ("sparse_linear.pt", "colbert_linear.pt")
_MULTI_VECTOR_KEYS = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens")


def find_kind(config: Mapping[str, Any]) -> Any:
    """Return the class that config_sentence_transformers.json says a model is of, by sentence-transformers' name."""
    stated = config.get("model_type")
    if stated == "ColBERT" or (stated is None and any(key in config for key in _MULTI_VECTOR_KEYS)):
        return "MultiVectorEncoder"  # as PyLate writes it
    return "SentenceTransformer" if stated is None else stated


def check_kind(path: Path, config: Mapping[str, Any], wanted: str) -> None:
    """Refuse a model of another kind than that which is loaded, and name the class that loads it.

    Args:
        path: config_sentence_transformers.json.
        config: its content.
        wanted: the kind, by sentence-transformers' name.

    Raises:
        ModelLoadError: it is of another kind that is known.
    """
    kind = find_kind(config)
    if kind != wanted and isinstance(kind, str) and kind in _KINDS:
        found, name = _KINDS[kind]
        raise ModelLoadError(
            f"{path}: model_type = {kind!r}: the model is {found}, and not {_KINDS[wanted][0]}: use akidb_mlx.{name}"
            f"{_name_pickles(path.parent)}"
        )


def check_kind_of_routed(directory: Path, wanted: str) -> None:
    """Refuse a model of another kind whose encoders have folders of their own, so that it has no config.json to read.

    Args:
        directory: the model directory.
        wanted: the kind, by sentence-transformers' name.

    Raises:
        ModelLoadError: it is one, of a kind that is known.
    """
    if is_file(directory / "modules.json") and not is_file(directory / "config.json"):
        path = directory / "config_sentence_transformers.json"
        check_kind(path, read_optional_json(path), wanted)


def _name_pickles(directory: Path) -> str:
    """Return what to do about further heads that a model has as pickles, as bge-m3 does; "" where it has none."""
    found = [name for name in _PICKLED_HEADS if is_file(directory / name)]
    if not found:
        return ""
    return (
        f"; {' and '.join(found)} are pickles, which are never loaded: docs/checkpoints.md says what can be converted"
    )


def check_additions(directory: Path, config: Mapping[str, Any], own_code: Collection[str] = ()) -> None:
    """Refuse a model that is more than its weights: an adapter or code beside them.

    Args:
        directory: the model directory.
        config: the content of config.json.
        own_code: the architecture's; such code computes what is computed here, and is not run.

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
        asked = {name: code[name] for name in _CODE if code.get(name)}
        others = {name: path for name, path in asked.items() if str(path).rpartition("--")[2] not in own_code}
        entry = next((f"{name} = {reprlib.repr(path)}" for name, path in others.items()), None)
    else:
        entry = reprlib.repr(code) if code else None
    if entry is not None:
        raise ModelLoadError(
            f"{directory / 'config.json'}: auto_map asks for code of the model's own ({entry}), and no code of a model "
            "is run here; remove the key if the model computes the same without it"
        )


def is_colbert(config: Mapping[str, Any]) -> bool:
    """Return whether config.json is that of a multi-vector model as ColBERT's own program saves it."""
    names = config.get("architectures")
    return isinstance(names, list) and "HF_ColBERT" in names


def check_not_colbert(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a multi-vector model as an embedding model.

    Raises:
        ModelLoadError: it is one.
    """
    if is_colbert(config):
        raise ModelLoadError(
            f"{path.parent} is a multi-vector model (ColBERT), and not an embedding model: use "
            "akidb_mlx.MultiVectorEmbedder"
        )


def check_heads(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a model that has a head: it was made for another task, and its token vectors too.

    Raises:
        ModelLoadError: a tensor belongs to one.
    """
    for name, tensor in tensors.items():
        kind = find_head(name)
        if kind is not None:
            other = "use akidb_mlx.Reranker for a reranker; " if kind in (_RERANKER, _LANGUAGE_MODEL) else ""
            if "masked words" in kind or kind == _LANGUAGE_MODEL:
                other += "use akidb_mlx.SparseEmbedder for a sparse model (SPLADE); "
            raise ModelLoadError(
                f"{tensor.file}: {cut(tensor.key)} belongs to the head of {kind}, so this is not an embedding model; "
                f"{other}if its token vectors are to be pooled nevertheless, load and save it with "
                "sentence-transformers, which leaves the head out"
            )


def find_head(name: str) -> str | None:
    """Return the kind of model that a tensor's name shows, where it belongs to a head."""
    return next((kind for start, kind in HEADS.items() if name.startswith(start)), None)


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
        f"end every text with {token}, so it may be a chat model or a reranker (use akidb_mlx.Reranker); "
        f"add the files from the original model ({architecture.original}), or insist with "
        "Settings(allow_unstated_pooling=True) or, in the environment, AKIDB_ALLOW_UNSTATED_POOLING=1"
    )
