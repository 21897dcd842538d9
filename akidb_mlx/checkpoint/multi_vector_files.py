"""A multi-vector model's files beside its encoder's: sentence-transformers', PyLate's, and ColBERT's own."""

from __future__ import annotations

import reprlib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.files import read_json, read_optional_json
from akidb_mlx.checkpoint.head import Dense, Normalize
from akidb_mlx.checkpoint.head_modules import read_dense_config
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import (
    MASK_KEYS,
    MULTI_VECTOR_MODEL_KEYS,
    MULTI_VECTOR_TRANSFORMER_KEYS,
    TOKEN_DENSE_KEYS,
    TOKEN_NORMALIZE_KEYS,
)
from akidb_mlx.checkpoint.modules import Module, list_modules
from akidb_mlx.checkpoint.purpose import check_kind, find_kind
from akidb_mlx.checkpoint.sentence_config import check_prompts, read_transformer
from akidb_mlx.checkpoint.tensors import StoredTensor, read_module_header
from akidb_mlx.errors import ModelLoadError

# The length of a query in ColBERT, where no file says it.
_QUERY_LENGTH = 32
# The tensors of a quantised layer beside its weight.
_PACKING = ("scales", "biases")
# PyLate's own classes, and sentence-transformers' that do the same.
_PYLATE = {"pylate.models.Dense.Dense": "Dense"}
# The keys of config_sentence_transformers.json by which PyLate's files are known.
_EXPANSION_MARKS = (
    *("query_length", "document_length", "query_expansion", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)


@dataclass
class Layout:
    """The content of the files beside those of the encoder, whatever their form.

    Attributes:
        modules: after the encoder.
        lengths: `query_length`, `document_length` and `query_expansion`, as a Transformer module holds them.
        skiplist: tokens whose vectors are left out.
        skip_roles: of which texts.
        prompts: by name.
        markers: prompts that begin with a token which must stay whole.
        similarity: the name of the function that compares vectors.
        transformer: the configuration of the Transformer module.
        tensors: those of the modules.
    """

    modules: tuple[Dense | Normalize, ...] = ()
    lengths: dict[str, Any] = field(default_factory=dict)
    skiplist: tuple[str, ...] = ()
    skip_roles: frozenset[str] = frozenset({"document"})
    prompts: dict[str, str] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    similarity: Any = None
    transformer: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def read_modules_layout(directory: Path) -> Layout:
    """Read sentence-transformers' or PyLate's files."""
    path = directory / "config_sentence_transformers.json"
    model = read_optional_json(path)
    check_kind(path, model, "MultiVectorEncoder")
    MULTI_VECTOR_MODEL_KEYS.check(path, model)
    check_prompts(path, model)
    transformer = read_transformer(directory, MULTI_VECTOR_TRANSFORMER_KEYS)
    layout = Layout(similarity=model.get("similarity_fn_name"), transformer=transformer)
    _read_prompts(path, model, layout)
    legacy = _read_legacy_lengths(path, model)
    for key in ("query_length", "document_length", "query_expansion"):
        layout.lengths[key] = transformer[key] if key in transformer else legacy.get(key)
    modules = [
        Module(_PYLATE.get(module.kind, module.kind), module.folder)
        for module in list_modules(directory / "modules.json")
    ]
    pylate = model.get("model_type") != find_kind(model)
    _check_modules(directory, modules, pylate)
    for module in modules[1:]:
        _read_module(module, layout)
    if pylate:
        words = model.get("skiplist_words")
        if words is not None:
            layout.skiplist = _strings(path, "skiplist_words", words)
        elif layout.markers or "model_type" in model:
            layout.skiplist = tuple(string.punctuation)
        layout.modules += (Normalize(),)
    elif layout.lengths["query_expansion"] is not None and "MultiVectorMask" not in [one.kind for one in modules]:
        raise ModelLoadError(
            f"{directory / 'modules.json'} lists no MultiVectorMask, by which the tokens of query_expansion would be "
            "scored"
        )
    return layout


def _check_modules(directory: Path, modules: list[Module], pylate: bool) -> None:
    kinds = [module.kind for module in modules]
    supported = {"Dense"} if pylate else {"Dense", "Normalize", "MultiVectorMask"}
    if kinds[:1] != ["Transformer"] or not set(kinds[1:]) <= supported or modules[0].folder != directory:
        raise ModelLoadError(
            f"{directory / 'modules.json'} lists {cut(', '.join(kinds)) or 'nothing'}; supported in a multi-vector "
            "model: Transformer, in the model directory itself, and then any of Dense, Normalize, MultiVectorMask"
        )


def _read_module(module: Module, layout: Layout) -> None:
    """Add what a module's files say to a layout."""
    path = module.folder / "config.json"
    if module.kind == "Dense":
        name = f"dense.{len(layout.modules)}"
        for tensor in read_module_header(module.folder):
            layout.tensors[f"{name}.{tensor.key.removeprefix('linear.')}"] = tensor
        if len(layout.tensors.get(f"{name}.weight", StoredTensor(path, "", (), "")).shape) != 2:
            raise ModelLoadError(f"{module.folder}: linear.weight is missing, or is not a matrix")
        layout.modules += (read_dense_config(path, name, layout.tensors, TOKEN_DENSE_KEYS),)
    elif module.kind == "Normalize":
        config = read_optional_json(path)
        TOKEN_NORMALIZE_KEYS.check(path, config)
        if config.get("module_input_name") != "token_embeddings":
            raise ModelLoadError(
                f"{path}: module_input_name {reprlib.repr(config.get('module_input_name'))} is not supported; "
                "'token_embeddings' is"
            )
        layout.modules += (Normalize(),)
    else:
        config = read_json(path)
        MASK_KEYS.check(path, config)
        roles = config.get("skiplist_tasks")
        roles = ["document"] if roles is None else [roles] if isinstance(roles, str) else roles
        layout.skiplist = _strings(path, "skiplist_words", config.get("skiplist_words") or [])
        layout.skip_roles = frozenset(_strings(path, "skiplist_tasks", roles))


def _read_prompts(path: Path, model: Mapping[str, Any], layout: Layout) -> None:
    """Read the prompts; PyLate's prefixes come first in them."""
    layout.prompts = dict(model.get("prompts") or {})
    for role in ("query", "document"):
        if f"{role}_prefix" in model:
            prefix = model[f"{role}_prefix"] or ""
            if not isinstance(prefix, str):
                raise ModelLoadError(f"{path}: {role}_prefix must be a string, found {reprlib.repr(prefix)}")
            layout.prompts[role] = prefix + layout.prompts.get(role, "").removeprefix(prefix)
            layout.markers += (prefix,)


def _read_legacy_lengths(path: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lengths that PyLate wrote for the whole model, as a Transformer module would hold them."""
    found = {
        key: model[key]
        for key in ("query_length", "document_length", "query_expansion")
        if key in model and (model[key] is not None or key == "query_expansion")
    }
    if "query_expansion" in found or not any(key in model for key in _EXPANSION_MARKS):
        return found
    for key in ("do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens"):
        if not isinstance(model.get(key), bool | None):
            raise ModelLoadError(f"{path}: {key} must be true or false, found {reprlib.repr(model[key])}")
    if model.get("do_query_expansion") is False:
        found["query_expansion"] = None
    else:
        attend = model.get("attend_to_expansion_tokens", model.get("attend_to_mask_tokens"))
        length = found.pop("query_length", None) or _QUERY_LENGTH
        found["query_expansion"] = {"strategy": "fixed", "attend": bool(attend), "length": length}
    return found


def read_colbert_layout(directory: Path, tensors: dict[str, StoredTensor]) -> Layout:
    """Read the files of ColBERT's own program, whose projection lies beside the encoder's tensors."""
    path = directory / "artifact.metadata"
    metadata = read_optional_json(path)
    layer = tensors.pop("linear.weight", None)
    if layer is None or len(layer.shape) != 2:
        raise ModelLoadError(f"{directory}: linear.weight is missing, or is not a matrix")
    packing = {f"dense.0.{part}": tensors.pop(f"linear.{part}") for part in _PACKING if f"linear.{part}" in tensors}
    markers = {"query": metadata.get("query_token_id") or "[unused0]", "document": metadata.get("doc_token_id")}
    markers["document"] = markers["document"] or "[unused1]"
    if not all(isinstance(marker, str) for marker in markers.values()):
        raise ModelLoadError(f"{path}: query_token_id and doc_token_id must be tokens, found {reprlib.repr(markers)}")
    prompts = {role: f"{marker} " for role, marker in markers.items()}
    expansion = {
        "strategy": "fixed",
        "attend": bool(metadata.get("attend_to_mask_tokens")),
        "length": metadata.get("query_maxlen") or _QUERY_LENGTH,
    }
    return Layout(
        modules=(Dense("dense.0", layer.shape[0], bias=False), Normalize()),
        lengths={"document_length": metadata.get("doc_maxlen"), "query_expansion": expansion},
        skiplist=tuple(string.punctuation) if metadata.get("mask_punctuation", True) else (),
        prompts=prompts,
        markers=tuple(prompts.values()),
        tensors={"dense.0.weight": layer} | packing,
    )


def _strings(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ModelLoadError(f"{path}: {key} must be a list of strings, found {reprlib.repr(value)}")
    return tuple(value)
