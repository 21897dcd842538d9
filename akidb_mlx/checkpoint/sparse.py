"""The contents of a sparse model's directory: a model of masked words and its pooling (SPLADE), or weights of tokens.

Its files are read as SparseEncoder of sentence-transformers 6.2 reads them. Without modules.json, a model for masked
words is pooled with the maximum.
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
from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import (
    LOGITS_MODALITY_KEYS,
    SPARSE_MODEL_KEYS,
    SPARSE_TRANSFORMER_KEYS,
    SPLADE_KEYS,
    STATIC_SPARSE_KEYS,
)
from akidb_mlx.checkpoint.modules import EVERY_ROLE, Module, ModuleList, route_modules
from akidb_mlx.checkpoint.purpose import check_kind
from akidb_mlx.checkpoint.quantization import read_quantization
from akidb_mlx.checkpoint.sentence_config import check_prompts, read_transformer
from akidb_mlx.checkpoint.sparse_head import MaskedLayers, SparseHead, Splade, TokenWeights
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, read_module_header, read_tensors
from akidb_mlx.errors import ModelLoadError

# The modules of a route that are supported.
_SPLADE = (("Transformer", "SpladePooling"), ("MLMTransformer", "SpladePooling"))
_WEIGHTS = ("SparseStaticEmbedding",)
# How often log(1 + x) is taken, by the names of SpladePooling.
_LOGARITHMS = {"relu": 1, "log1p_relu": 2}
# Tensors of BERT's other head, which reads pairs.
_OTHER_HEADS = ("cls.seq_relationship.",)


def read_sparse(directory: Path) -> Checkpoint:
    """Read a sparse model's configuration and tensor headers. Nothing from it is executed.

    Raises:
        ModelLoadError: a file is missing or malformed, is not a sparse model's, or asks for something that is not
            supported.
    """
    modules, model = _read_modules(directory)
    encoder = _encoder_module(directory, modules)
    folder = encoder.folder
    config_path = folder / "config.json"
    config, model_type = read_config(config_path)
    architecture = ARCHITECTURES[model_type]
    config = text_config(config_path, config, architecture)
    encoder_config = parse_config(architecture.config, config)
    if not modules.listed:
        _check_masked(directory, config)
    transformer = _read_transformer(encoder) if modules.listed else {}
    tensors = read_tensors(folder, architecture)
    tensors = {name: stored for name, stored in tensors.items() if not name.startswith(_OTHER_HEADS)}
    quantization = read_quantization(config_path, config, architecture)
    check_layers(config_path, quantization, tensors)
    dtype = float_type(tensors.values())
    layers = _read_layers(config_path, config, architecture, encoder_config, tensors)
    heads = {route: _read_head(chain, layers, tensors) for route, chain in modules.chains.items()}
    sizes = {layers.vocabulary, *(head.vocabulary for head in heads.values() if isinstance(head, TokenWeights))}
    if len(sizes) > 1:
        raise ModelLoadError(f"{directory}: its routes have different vocabularies, of {sorted(sizes)} tokens")
    return Checkpoint(
        directory=folder,
        model_type=model_type,
        config=config,
        encoder_config=encoder_config,
        tensors=tensors,
        quantization=quantization,
        dtype=dtype,
        heads={},
        routes=modules.routes,
        stated_embedder=True,
        prompts=model.get("prompts") or {},
        truncate_dim=None,
        max_tokens=read_max_tokens(folder, config, encoder_config, transformer),
        lower_case=transformer.get("do_lower_case") is True,
        sparse=heads,
    )


def _read_modules(directory: Path) -> tuple[ModuleList, dict[str, Any]]:
    """Return the modules, and config_sentence_transformers.json, which counts where modules.json is there only."""
    path = directory / "modules.json"
    if not is_file(path):
        unlisted = (Module("Transformer", directory), Module("SpladePooling", directory))
        return ModuleList(False, {"": unlisted}, EVERY_ROLE), {}
    config_path = directory / "config_sentence_transformers.json"
    model = read_optional_json(config_path)
    check_kind(config_path, model, "SparseEncoder")
    SPARSE_MODEL_KEYS.check(config_path, model)
    check_prompts(config_path, model)
    most, compared = model.get("max_active_dims"), model.get("similarity_fn_name")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ModelLoadError(f"{config_path}: max_active_dims must be an integer of 1 or more, found {most!r}")
    if compared not in (None, "dot", "cosine"):
        raise ModelLoadError(
            f"{config_path}: similarity_fn_name {reprlib.repr(compared)} is not supported; 'dot' and 'cosine' are"
        )
    return route_modules(path), model


def _encoder_module(directory: Path, modules: ModuleList) -> Module:
    """Return the one Transformer of all routes, once all are known to be supported."""
    chains = modules.chains.values()
    for chain in chains:
        kinds = _kinds(chain)
        if "SparseAutoEncoder" in kinds:
            raise ModelLoadError(
                f"{directory / 'modules.json'} lists SparseAutoEncoder (CSR), which is not supported; SPLADE models are"
            )
        if kinds not in _SPLADE and kinds != _WEIGHTS:
            raise ModelLoadError(
                f"{directory / 'modules.json'} lists {cut(', '.join(kinds)) or 'nothing'}; supported in a sparse "
                "model: Transformer or MLMTransformer and then SpladePooling, or SparseStaticEmbedding alone; a Router "
                "over such modules"
            )
    encoders = {chain[0] for chain in chains if _kinds(chain) != _WEIGHTS}
    if len(encoders) != 1:
        raise ModelLoadError(
            f"{directory / 'modules.json'} lists {len(encoders)} Transformers; sparse models with one are supported"
        )
    return encoders.pop()


def _check_masked(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuse a model without modules.json that is not for masked words."""
    names = config.get("architectures")
    if not isinstance(names, list) or not any(isinstance(name, str) and name.endswith("ForMaskedLM") for name in names):
        raise ModelLoadError(
            f"{directory} is not a sparse model: it has no modules.json, and its config.json names no model of masked "
            f"words (architectures {reprlib.repr(names)}); use akidb_mlx.EmbeddingService for an embedding model"
        )


def _read_transformer(module: Module) -> dict[str, Any]:
    config = read_transformer(module.folder, SPARSE_TRANSFORMER_KEYS, LOGITS_MODALITY_KEYS)
    task = config.get("transformer_task", "fill-mask" if module.kind == "MLMTransformer" else "feature-extraction")
    if task != "fill-mask":
        raise ModelLoadError(
            f"{module.folder}: the Transformer's transformer_task {reprlib.repr(task)} is not supported; 'fill-mask' is"
        )
    return config


def _read_layers(
    path: Path,
    config: Mapping[str, Any],
    architecture: Architecture,
    encoder_config: EncoderConfig,
    tensors: dict[str, StoredTensor],
) -> MaskedLayers:
    """Return the layers of the head, found as transformers finds them: an output that is not stored is the table."""
    head = architecture.masked_head
    if head is None:
        raise ModelLoadError(f"{path}: sparse models of the architecture {config['model_type']} are not supported")
    tied = config.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise ModelLoadError(f"{path}: tie_word_embeddings must be true or false, found {reprlib.repr(tied)}")
    activation = "gelu" if head.activation is None else config.get(head.activation, "gelu")
    if not isinstance(activation, str):
        raise ModelLoadError(f"{path}: {head.activation} must name a function, found {reprlib.repr(activation)}")
    for name, (key, default) in head.biases.items():
        if config.get(key, default) is not (name in tensors):
            raise ModelLoadError(
                f"{path}: {key} is {reprlib.repr(config.get(key, default))}, and {name} says otherwise"
            )
    bias, own = f"{head.output}.bias", f"{head.output}.weight" in tensors
    if f"{head.dense}.weight" not in tensors or not (own or tied):
        missing = head.dense if own or tied else head.output
        raise ModelLoadError(
            f"{path.parent} is not a sparse model: it has no {missing}.weight, of the head for masked words; use "
            "akidb_mlx.EmbeddingService for an embedding model"
        )
    names = [bias] if head.bias is None else [bias, head.bias]
    stored = [name for name in names if name in tensors]
    if not stored and bias not in head.biases:
        raise ModelLoadError(f"{path.parent}: {names[-1]} is missing, of the head for masked words")
    if stored and stored[0] != bias and not tied:
        raise ModelLoadError(f"{path.parent}: {bias} is missing, and {stored[0]} is not tied to it")
    if stored[1:]:
        del tensors[stored[1]]  # the output has a bias of its own, which counts
    return MaskedLayers(
        dense=head.dense,
        activation=activation,
        norm=head.norm,
        eps=getattr(encoder_config, head.eps),
        output=head.output if own else head.table,
        output_bias=stored[0] if stored else None,
        vocabulary=encoder_config.vocab_size,
    )


def _read_head(chain: tuple[Module, ...], layers: MaskedLayers, tensors: dict[str, StoredTensor]) -> SparseHead:
    """Return the head of a route; the tensor of fixed weights is added to the others."""
    if _kinds(chain) == _WEIGHTS:
        folder = chain[0].folder
        STATIC_SPARSE_KEYS.check(folder / "config.json", read_optional_json(folder / "config.json"))
        name = f"token_weights.{sum(key.startswith('token_weights.') for key in tensors)}"
        stored = {tensor.key: tensor for tensor in read_module_header(folder)}
        if set(stored) != {"weight"} or len(stored["weight"].shape) != 1:
            raise ModelLoadError(f"{folder / 'model.safetensors'} must hold one vector, `weight`")
        tensors[name] = stored["weight"]
        return TokenWeights(name, stored["weight"].shape[0], folder)
    path = chain[1].folder / "config.json"
    config = read_json(path) if is_file(path) and chain[1].folder != chain[0].folder else {}
    SPLADE_KEYS.check(path, config)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if strategy not in ("max", "sum") or not isinstance(activation, str) or activation not in _LOGARITHMS:
        raise ModelLoadError(
            f"{path}: pooling_strategy {reprlib.repr(strategy)} with activation_function {reprlib.repr(activation)} is "
            f"not supported; max and sum with {' and '.join(_LOGARITHMS)} are"
        )
    return Splade(layers, strategy, _LOGARITHMS[activation])


def _kinds(chain: tuple[Module, ...]) -> tuple[str, ...]:
    return tuple(module.kind for module in chain)
