"""The contents of a multi-vector model's directory (ColBERT): an encoder, and modules that map each token's vector.

Its files are read as MultiVectorEncoder of sentence-transformers 6.2 reads them: its own, PyLate's, and those of
ColBERT's own program, which have no modules.json.
"""

from __future__ import annotations

import reprlib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import EncoderConfig, parse_config
from akidb_mlx.checkpoint.checkpoint import Checkpoint, check_layers, read_config, read_max_tokens, text_config
from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.head import Dense, Normalize
from akidb_mlx.checkpoint.head_modules import read_dense_config
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import (
    EXPANSION_KEYS,
    MASK_KEYS,
    MULTI_VECTOR_MODEL_KEYS,
    MULTI_VECTOR_TRANSFORMER_KEYS,
    TEXT_MODALITY_KEYS,
    TOKEN_DENSE_KEYS,
    TOKEN_NORMALIZE_KEYS,
)
from akidb_mlx.checkpoint.modules import EVERY_ROLE, Module, list_modules
from akidb_mlx.checkpoint.multi_vector_head import MultiVector, QueryExpansion
from akidb_mlx.checkpoint.purpose import check_heads, check_kind, find_kind, is_colbert
from akidb_mlx.checkpoint.quantization import read_quantization
from akidb_mlx.checkpoint.sentence_config import check_prompts, check_transformer, find_transformer
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, read_module_header, read_tensors
from akidb_mlx.errors import ModelLoadError

# The length of a query in ColBERT, where no file says it.
_QUERY_LENGTH = 32
# PyLate's own classes, and sentence-transformers' that do the same.
_PYLATE = {"pylate.models.Dense.Dense": "Dense"}
# The keys of config_sentence_transformers.json by which PyLate's files are known.
_EXPANSION_MARKS = (
    *("query_length", "document_length", "query_expansion", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)
# The keys of config.json for how far a token sees in some layers.
_WINDOWS = ("local_attention", "sliding_window")


@dataclass
class _Layout:
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


def read_multi_vector(directory: Path) -> Checkpoint:
    """Read a multi-vector model's configuration and tensor headers. Nothing from it is executed.

    Raises:
        ModelLoadError: a file is missing or malformed, is not a multi-vector model's, or asks for something that is not
            supported.
    """
    config_path = directory / "config.json"
    config, model_type = read_config(config_path)
    architecture = ARCHITECTURES[model_type]
    config = text_config(config_path, config, architecture)
    encoder_config = parse_config(architecture.config, config)
    listed = is_file(directory / "modules.json")
    if not listed and not is_colbert(config):
        raise ModelLoadError(
            f"{directory} is not a multi-vector model: it has no modules.json, and config.json does not name "
            "HF_ColBERT among its architectures; use akidb_mlx.EmbeddingService for an embedding model"
        )
    # Before the tensors: another kind of model is to be told from its configuration.
    layout = _read_modules(directory) if listed else _Layout()
    tensors = read_tensors(directory, architecture)
    if not listed:
        layout = _read_colbert(directory, tensors)
    check_heads(tensors)
    quantization = read_quantization(config_path, config, architecture)
    check_layers(config_path, quantization, tensors)
    most = _positions(config, encoder_config)
    max_tokens = read_max_tokens(directory, config, encoder_config, layout.transformer)
    expansion = _read_expansion(directory, config, layout, architecture, most)
    limits = _limits(directory, layout, expansion, max_tokens, most)
    return Checkpoint(
        directory=directory,
        model_type=model_type,
        config=config,
        encoder_config=encoder_config,
        tensors=tensors | layout.tensors,
        quantization=quantization,
        dtype=float_type(tensors.values()),
        heads={},
        routes=EVERY_ROLE,
        stated_embedder=True,
        prompts=layout.prompts,
        truncate_dim=None,
        max_tokens=max(*limits.values(), expansion.length if expansion else 0),
        lower_case=layout.transformer.get("do_lower_case") is True,
        multi_vector=MultiVector(
            modules=layout.modules,
            limits=limits,
            expansion=expansion,
            skiplist=layout.skiplist,
            skip_roles=layout.skip_roles,
            markers=layout.markers,
            similarity="meanmaxsim" if layout.similarity == "meanmaxsim" else "maxsim",
        ),
    )


def _read_modules(directory: Path) -> _Layout:
    """Read sentence-transformers' or PyLate's files."""
    path = directory / "config_sentence_transformers.json"
    model = read_optional_json(path)
    check_kind(path, model, "MultiVectorEncoder")
    MULTI_VECTOR_MODEL_KEYS.check(path, model)
    check_prompts(path, model)
    transformer = _read_transformer(directory)
    layout = _Layout(similarity=model.get("similarity_fn_name"), transformer=transformer)
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


def _read_module(module: Module, layout: _Layout) -> None:
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


def _read_prompts(path: Path, model: Mapping[str, Any], layout: _Layout) -> None:
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


def _read_transformer(directory: Path) -> dict[str, Any]:
    path, config = find_transformer(directory)
    MULTI_VECTOR_TRANSFORMER_KEYS.check(path, config)
    modalities = config.get("modality_config")
    if modalities is not None:
        text = modalities.get("text") if isinstance(modalities, dict) else None
        if not isinstance(text, dict):
            raise ModelLoadError(f"{path}: modality_config has no `text`: the model does not take texts")
        TEXT_MODALITY_KEYS.check(path, text, "modality_config.text.")
    check_transformer(path, config)
    return config


def _read_colbert(directory: Path, tensors: dict[str, StoredTensor]) -> _Layout:
    """Read the files of ColBERT's own program, whose projection lies beside the encoder's tensors."""
    path = directory / "artifact.metadata"
    metadata = read_optional_json(path)
    layer = tensors.pop("linear.weight", None)
    if layer is None or len(layer.shape) != 2:
        raise ModelLoadError(f"{directory}: linear.weight is missing, or is not a matrix")
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
    return _Layout(
        modules=(Dense("dense.0", "Identity"), Normalize()),
        lengths={"document_length": metadata.get("doc_maxlen"), "query_expansion": expansion},
        skiplist=tuple(string.punctuation) if metadata.get("mask_punctuation", True) else (),
        prompts=prompts,
        markers=tuple(prompts.values()),
        tensors={"dense.0.weight": layer},
    )


def _read_expansion(
    directory: Path, config: Mapping[str, Any], layout: _Layout, architecture: Architecture, most: int | None
) -> QueryExpansion | None:
    """Return the expansion of queries, once it is known that it can be computed."""
    stated = layout.lengths.get("query_expansion")
    if stated is None:
        return None
    if not isinstance(stated, dict):
        raise ModelLoadError(f"{directory}: query_expansion must be an object, found {reprlib.repr(stated)}")
    EXPANSION_KEYS.check(directory, stated, "query_expansion.")
    strategy, attend, token, length = (stated.get(key) for key in ("strategy", "attend", "token", "length"))
    if (
        strategy not in ("fixed", "min")
        or not isinstance(attend, bool | None)
        or not isinstance(token, str | None)
        or not isinstance(length, int)
        or isinstance(length, bool)
        or not 1 <= length <= (length if most is None else most)
    ):
        bound = "" if most is None else f" from 1 to {most}"
        raise ModelLoadError(
            f"{directory}: query_expansion {reprlib.repr(stated)} is not supported; it needs a strategy, 'fixed' or "
            f"'min', and a length{bound}"
        )
    if not attend:
        windows = [config[key] for key in _WINDOWS if isinstance(config.get(key), int)]
        if architecture.masked_head is None or any(length - 1 > window // 2 for window in windows):
            raise ModelLoadError(
                f"{directory}: query_expansion without `attend` is supported for encoders whose every token sees a "
                f"whole query, and not for this one of the architecture {config['model_type']}"
            )
    return QueryExpansion(length, strategy == "fixed", bool(attend), token)


def _limits(
    directory: Path, layout: _Layout, expansion: QueryExpansion | None, max_tokens: int, most: int | None
) -> dict[Any, int]:
    """Return how many tokens a text of each role may have; a stated length counts before the tokenizer's."""
    found: dict[Any, int] = {}
    for role in ("query", "document"):
        length = layout.lengths.get(f"{role}_length")
        if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
            raise ModelLoadError(f"{directory}: {role}_length must be an integer of 1 or more, found {length!r}")
        if role == "query" and expansion is not None:
            if length is not None and length < expansion.length:
                raise ModelLoadError(
                    f"{directory}: query_length {length} is less than query_expansion's length {expansion.length}"
                )
            length = expansion.length if expansion.fixed else length
        length = max_tokens if length is None else length
        found[role] = length if most is None else min(length, most)
    return found


def _positions(config: Mapping[str, Any], encoder_config: EncoderConfig) -> int | None:
    """Return how many tokens the encoder has positions for; None where it has any number."""
    stated = config.get("max_position_embeddings", getattr(encoder_config, "max_position_embeddings", None))
    return stated - encoder_config.reserved_positions if isinstance(stated, int) else None


def _strings(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ModelLoadError(f"{path}: {key} must be a list of strings, found {reprlib.repr(value)}")
    return tuple(value)
