"""The files of a static model, as model2vec and sentence-transformers write them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures.static import MODEL2VEC_KEYS
from akidb_mlx.checkpoint.files import is_file, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import NORMALIZE_KEYS
from akidb_mlx.checkpoint.modules import list_modules
from akidb_mlx.checkpoint.tensors import StoredTensor, read_header
from akidb_mlx.checkpoint.tokenization.files import read_description
from akidb_mlx.errors import ModelLoadError

# Tokens of a text that a model reads which has no limit.
UNLIMITED = (1 << 31) - 1
# model2vec's limit where its config.json has none.
_MODEL2VEC_TOKENS = 512
_TABLES = ("embeddings", "embedding.weight")
_TABLE_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "I8": "int8"}
_MAPPING_TYPES = ("I64", "I32", "I16", "U32", "U16")
_MAX_SIZE = 1 << 24


@dataclass(frozen=True)
class StaticTable:
    """A table of token vectors, and how texts are read with it.

    Attributes:
        vectors: (rows, dimension).
        mapping: (tokens,) integers, the row of each token; None where tokens and rows are the same.
        weights: (tokens,) factors of the tokens' vectors; None for 1.
        tokenizer: tokenizer.json.
        max_tokens: most tokens of a text that are read.
        keeps_end: whether a text that is too long loses its beginning instead of its end.
        model2vec: whether texts are read as model2vec reads them, which leaves unknown tokens out and cuts long texts
            by characters first; else as sentence-transformers' StaticEmbedding does.
    """

    vectors: StoredTensor
    mapping: StoredTensor | None
    weights: StoredTensor | None
    tokenizer: Path
    max_tokens: int
    keeps_end: bool
    model2vec: bool

    @property
    def tokens(self) -> int:
        """Return how many tokens have a vector."""
        return (self.mapping or self.vectors).shape[0]

    @property
    def dimension(self) -> int:
        """Return the size of a vector."""
        return self.vectors.shape[1]

    @property
    def dtype(self) -> str:
        """Return the type of the table's values, as in "float16"."""
        return _TABLE_TYPES[self.vectors.dtype]


def read_static(directory: Path, config: Mapping[str, Any]) -> StaticTable | None:
    """Return the table of a static model; None for a model of another kind.

    Args:
        directory: the model directory.
        config: the content of config.json, empty where there is none.

    Raises:
        ModelLoadError: a file is missing or malformed, or asks for something that is not supported.
    """
    path = directory / "modules.json"
    modules = list_modules(path) if is_file(path) else ()
    listed = [module.kind for module in modules]
    model2vec = config.get("model_type") == "model2vec"
    if not model2vec and listed[:1] != ["StaticEmbedding"]:
        return None
    if listed and listed not in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]):
        raise ModelLoadError(f"{path} lists {cut(', '.join(listed))}; supported: StaticEmbedding, Normalize")
    for module in modules[1:]:
        NORMALIZE_KEYS.check(module.folder / "config.json", read_optional_json(module.folder / "config.json"))
    folder = modules[0].folder if modules else directory
    if model2vec and folder != directory:
        raise ModelLoadError(f"{path}: a model of model2vec lies in the model directory itself, not in {folder.name}")
    tokenizer = folder / "tokenizer.json"
    if model2vec:
        MODEL2VEC_KEYS.check(directory / "config.json", config)
        limit, keeps_end = _model2vec_limit(directory / "config.json", config), False
    else:
        limit, keeps_end = _truncation(tokenizer)
    vectors, mapping, weights = _read_tensors(folder / "model.safetensors")
    return StaticTable(vectors, mapping, weights, tokenizer, limit, keeps_end, model2vec)


def _model2vec_limit(path: Path, config: Mapping[str, Any]) -> int:
    limit = config.get("max_length", _MODEL2VEC_TOKENS)
    if limit is None:
        return UNLIMITED
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= UNLIMITED:
        raise ModelLoadError(f"{path}: max_length must be an integer of 1 or more, found {reprlib.repr(limit)}")
    return limit


def _truncation(path: Path) -> tuple[int, bool]:
    """Return the limit that a tokenizer.json states, and the side it keeps; StaticEmbedding has no limit of its own."""
    _, description = read_description(path)
    found = description.get("truncation")
    if found is None:
        return UNLIMITED, False
    limit = found.get("max_length") if isinstance(found, dict) else None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= UNLIMITED:
        raise ModelLoadError(f"{path}: truncation must have a max_length of 1 or more, found {reprlib.repr(found)}")
    if found.get("strategy", "LongestFirst") not in ("LongestFirst", "OnlyFirst"):
        raise ModelLoadError(f"{path}: truncation by {reprlib.repr(found['strategy'])} is for pairs of texts")
    return limit, str(found.get("direction", "Right")).lower() == "left"


def _read_tensors(path: Path) -> tuple[StoredTensor, StoredTensor | None, StoredTensor | None]:
    """Return the table, the mapping and the weights in a file, with types and shapes that fit together."""
    if not is_file(path):
        raise ModelLoadError(f"{path} is missing; static models are read from safetensors files only")
    stored = {tensor.key: tensor for tensor in read_header(path)}
    names = [name for name in _TABLES if name in stored]
    if len(names) != 1:
        raise ModelLoadError(f"{path} must have one table, {' or '.join(_TABLES)}, found {len(names)}")
    vectors, mapping, weights = stored.pop(names[0]), stored.pop("mapping", None), stored.pop("weights", None)
    if stored:
        raise ModelLoadError(f"{path}: {cut(min(stored))} is not part of a static model")
    if len(vectors.shape) != 2 or not all(0 < size < _MAX_SIZE for size in vectors.shape):
        raise ModelLoadError(f"{path}: {vectors.key} must be a matrix, found the shape {vectors.shape}")
    _check_type(vectors, _TABLE_TYPES)
    if mapping is not None:
        _check_type(mapping, _MAPPING_TYPES)
        if len(mapping.shape) != 1 or not 0 < mapping.shape[0] < _MAX_SIZE:
            raise ModelLoadError(f"{path}: mapping must have a row for each token, found the shape {mapping.shape}")
    if weights is not None:
        _check_type(weights, _TABLE_TYPES)
        tokens = (mapping or vectors).shape[0]
        if weights.shape != (tokens,):
            raise ModelLoadError(f"{path}: weights have the shape {weights.shape}, and there are {tokens} tokens")
    return vectors, mapping, weights


def _check_type(tensor: StoredTensor, supported: Mapping[str, str] | tuple[str, ...]) -> None:
    if tensor.dtype not in supported:
        raise ModelLoadError(
            f"{tensor.file}: {tensor.key} is stored as {tensor.dtype}; supported: {', '.join(supported)}"
        )
