"""The contents of a model directory, read from its files before anything is loaded.

The checkpoint's own files take precedence over the architecture's documented rules; a checkpoint is refused where both
are silent.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.architecture import Architecture, PoolingMode
from akidb_mlx.checkpoint.architectures.config import EncoderConfig, parse_config
from akidb_mlx.checkpoint.dense import DenseActivation, read_dense
from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.modules import read_model_config, read_modules, read_pooling, read_transformer
from akidb_mlx.checkpoint.purpose import check_additions, check_heads
from akidb_mlx.checkpoint.quantization import QuantizationConfig, read_quantization
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, read_tensors
from akidb_mlx.errors import ModelLoadError


@dataclass(frozen=True)
class Checkpoint:
    """The description of a model, from the files of its directory.

    Attributes:
        directory: the model directory.
        model_type: `model_type` in config.json; a key of `ARCHITECTURES`.
        config: the content of config.json.
        encoder_config: what the encoder reads of it, checked.
        tensors: every stored tensor by the encoder's name for it; Dense layers are `dense.0`, `dense.1`, …
        quantization: the packing of the layers that have scales.
        dtype: the floating type that most tensors are stored in.
        pooling: how token vectors become one vector.
        pooling_source: the file or rule that decided the pooling, for a person.
        stated_embedder: whether sentence-transformers' files say that it is an embedding model.
        dense_activations: one for each Dense layer after the pooling.
        prompts: named prompts.
        truncate_dim: how many values of a vector its publisher keeps by default, or None for all.
        max_tokens: most tokens of a text that the model reads, special tokens included.
        lower_case: whether texts are lower-cased before the tokenizer's own normalisation.
    """

    directory: Path
    model_type: str
    config: dict[str, Any]
    encoder_config: EncoderConfig
    tensors: dict[str, StoredTensor]
    quantization: QuantizationConfig
    dtype: str
    pooling: PoolingMode
    pooling_source: str
    stated_embedder: bool
    dense_activations: tuple[DenseActivation, ...]
    prompts: dict[str, str]
    truncate_dim: int | None
    max_tokens: int
    lower_case: bool

    @property
    def architecture(self) -> Architecture:
        """Return the record of this model type, with the rules that are for this model."""
        return ARCHITECTURES[self.model_type].for_config(self.encoder_config)

    @property
    def quantization_summary(self) -> str | None:
        """Describe how the quantised layers are packed; None where no layer is quantised."""
        layers = {name.removesuffix(".scales") for name in self.tensors if name.endswith(".scales")}
        return "; ".join(sorted({str(self.quantization.of(layer)) for layer in layers})) or None


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a model directory's configuration and tensor headers. Nothing from it is executed.

    Raises:
        ModelLoadError: a file is missing or malformed, or asks for something that is not supported.
    """
    config_path = directory / "config.json"
    config = read_json(config_path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ModelLoadError(
            f"{config_path}: model_type {reprlib.repr(model_type)} is not supported ({', '.join(ARCHITECTURES)})"
        )
    architecture = ARCHITECTURES[model_type]
    check_additions(directory, config, architecture)
    architecture.keys.check(config_path, config)
    encoder_config = parse_config(architecture.config, config)
    architecture = architecture.for_config(encoder_config)
    modules = read_modules(directory)
    model = read_model_config(directory)
    transformer = read_transformer(directory)
    tensors = read_tensors(directory, architecture)
    check_heads(tensors)
    pooling, pooling_source = read_pooling(directory, model_type, architecture, modules)
    dtype = float_type(tensors.values())
    quantization = read_quantization(config_path, config, architecture)
    _check_layers(config_path, quantization, tensors)
    dense_activations, dense_tensors = read_dense(directory, config, architecture, modules, tensors)
    return Checkpoint(
        directory=directory,
        model_type=model_type,
        config=config,
        encoder_config=encoder_config,
        tensors=tensors | dense_tensors,
        quantization=quantization,
        dtype=dtype,
        pooling=pooling,
        pooling_source=pooling_source,
        stated_embedder=modules.listed or bool(model) or is_file(modules.pooling / "config.json"),
        dense_activations=dense_activations,
        prompts=model["prompts"] if model.get("prompts") is not None else dict(architecture.prompts),
        truncate_dim=model.get("truncate_dim"),
        max_tokens=_max_tokens(directory, config, encoder_config, transformer),
        lower_case=transformer.get("do_lower_case") is True,
    )


def _check_layers(path: Path, quantization: QuantizationConfig, tensors: dict[str, StoredTensor]) -> None:
    """Refuse a packing for a layer that is not stored: it would be looked up under another name, and be lost."""
    for layer, packing in quantization.overrides.items():
        if packing is not None and f"{layer}.weight" not in tensors:
            raise ModelLoadError(f"{path}: quantization names {cut(layer)!r}, and {cut(layer)}.weight is not stored")


def _max_tokens(
    directory: Path, config: dict[str, Any], encoder_config: EncoderConfig, transformer: dict[str, Any]
) -> int:
    """Return the smallest of the limits in the files; no position beyond `max_position_embeddings` was trained."""
    stated = transformer.get("max_seq_length")
    if stated is None:
        stated = read_optional_json(directory / "tokenizer_config.json").get("model_max_length")
    positions = config.get("max_position_embeddings")
    limits = [limit for limit in (stated, positions) if limit is not None]
    if not limits or not all(isinstance(limit, int) and limit > 0 for limit in limits):
        raise ModelLoadError(
            f"{directory} does not say how many tokens the model takes: found max_seq_length or model_max_length "
            f"{reprlib.repr(stated)}, max_position_embeddings {reprlib.repr(positions)}"
        )
    if positions is not None:
        limits[-1] -= encoder_config.reserved_positions
    return int(min(limits))
