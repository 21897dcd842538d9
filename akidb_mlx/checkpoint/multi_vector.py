"""The contents of a multi-vector model's directory (ColBERT): an encoder, and modules that map each token's vector.

Its files are read as MultiVectorEncoder of sentence-transformers 6.2 reads them: its own, PyLate's, and those of
ColBERT's own program, which have no modules.json.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import EncoderConfig, parse_config
from akidb_mlx.checkpoint.checkpoint import Checkpoint, check_layers, read_config, read_max_tokens, text_config
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.module_keys import EXPANSION_KEYS
from akidb_mlx.checkpoint.modules import EVERY_ROLE
from akidb_mlx.checkpoint.multi_vector_files import Layout, read_colbert_layout, read_modules_layout
from akidb_mlx.checkpoint.multi_vector_head import MultiVector, QueryExpansion
from akidb_mlx.checkpoint.purpose import check_heads, check_kind_of_routed, is_colbert
from akidb_mlx.checkpoint.quantization import read_quantization
from akidb_mlx.checkpoint.tensors import float_type, read_tensors
from akidb_mlx.errors import ModelLoadError

# The keys of config.json for how far a token sees in some layers.
_WINDOWS = ("local_attention", "sliding_window")


def read_multi_vector(directory: Path) -> Checkpoint:
    """Read a multi-vector model's configuration and tensor headers. Nothing from it is executed.

    Raises:
        ModelLoadError: a file is missing or malformed, is not a multi-vector model's, or asks for something that is not
            supported.
    """
    check_kind_of_routed(directory, "MultiVectorEncoder")
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
    layout = read_modules_layout(directory) if listed else Layout()
    tensors = read_tensors(directory, architecture)
    if not listed:
        layout = read_colbert_layout(directory, tensors)
    check_heads(tensors)
    quantization = read_quantization(config_path, config, architecture)
    check_layers(config_path, quantization, tensors | layout.tensors)
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


def _read_expansion(
    directory: Path, config: Mapping[str, Any], layout: Layout, architecture: Architecture, most: int | None
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
    directory: Path, layout: Layout, expansion: QueryExpansion | None, max_tokens: int, most: int | None
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
