"""The heads of rerankers that make scores of pooled token vectors: transformers' classifiers, and Dense modules."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import EncoderConfig
from akidb_mlx.checkpoint.head import Dense, Head, Normalize
from akidb_mlx.checkpoint.head_modules import HeadReader
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.modules import EVERY_ROLE, ModuleList
from akidb_mlx.checkpoint.pair_template import find_template
from akidb_mlx.checkpoint.purpose import find_head
from akidb_mlx.checkpoint.reranker_files import RerankerFiles
from akidb_mlx.checkpoint.scoring import ACTIVATIONS, Scoring
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.errors import ModelLoadError


def read_classifier(
    directory: Path,
    config: Mapping[str, Any],
    encoder_config: EncoderConfig,
    architecture: Architecture,
    layout: RerankerFiles,
    tensors: Mapping[str, StoredTensor],
) -> tuple[Head, Scoring]:
    """Read a model for sequence classification of transformers.

    Raises:
        ModelLoadError: it is none, or asks for something that is not supported.
    """
    if architecture.classifier is None:
        raise ModelLoadError(f"{directory}: rerankers of the architecture {config['model_type']} are not supported")
    names = _read_label_names(directory / "config.json", config)
    head = architecture.classifier(encoder_config, len(names))
    layers = [module.name for module in head.modules if not isinstance(module, Normalize)]
    refuse_other_heads(tensors, tuple(f"{name}." for name in layers))
    output = layers[-1]
    weight = tensors.get(f"{output}.weight")
    if weight is None or len(weight.shape) != 2:
        raise ModelLoadError(
            f"{directory} is not a reranker: it has no {output}.weight; use akidb_mlx.EmbeddingService for an "
            "embedding model"
        )
    if not layout.listed and find_template(directory) is not None:
        raise ModelLoadError(f"{directory}: pairs in a chat template are supported for language models only")
    if weight.shape[0] != len(names):
        raise ModelLoadError(
            f"{directory / 'config.json'} says that there are {len(names)} labels (id2label or num_labels), and "
            f"{output}.weight has {weight.shape[0]} rows"
        )
    scoring = Scoring(
        labels=len(names),
        label_names=names,
        activation=read_activation(directory, config, layout, len(names)),
        source=f"{output} of {config['model_type']}",
        default_prompt=layout.model.get("default_prompt_name"),
    )
    return head, scoring


def read_score_modules(
    directory: Path,
    config: Mapping[str, Any],
    architecture: Architecture,
    layout: RerankerFiles,
    tensors: Mapping[str, StoredTensor],
) -> tuple[Head, Scoring, Mapping[str, StoredTensor]]:
    """Read the modules after a Transformer of which the last makes the scores, and return their tensors too.

    Raises:
        ModelLoadError: a file is missing or malformed, or asks for something that is not supported.
    """
    refuse_other_heads(tensors, ())
    last = layout.modules[-1].folder
    modules = ModuleList(True, {"": layout.modules}, EVERY_ROLE)
    reader = HeadReader(directory, config, architecture, modules, tensors, scores=last)
    head = reader.read(layout.modules)
    if not head.pooling.include_prompt:
        raise ModelLoadError(
            f"{directory}: include_prompt = false in {head.pooling.source} is not supported in a reranker"
        )
    output = head.modules[-1]
    assert isinstance(output, Dense)  # the layout ends with one
    scoring = Scoring(
        labels=output.outputs,
        label_names=_number_labels(output.outputs),
        activation=read_activation(directory, config, layout, output.outputs),
        source=str(last.relative_to(directory)),
        default_prompt=layout.model.get("default_prompt_name"),
    )
    return head, scoring, reader.tensors


def refuse_other_heads(tensors: Mapping[str, StoredTensor], own: tuple[str, ...]) -> None:
    """Refuse a model with the head of another kind of model.

    Args:
        tensors: those of its main file.
        own: the beginnings of the names of those that make its scores.

    Raises:
        ModelLoadError: a tensor belongs to another head.
    """
    for name, tensor in tensors.items():
        kind = find_head(name)
        if kind is not None and not name.startswith(own):
            raise ModelLoadError(
                f"{tensor.file}: {cut(tensor.key)} belongs to the head of {kind}, and this reranker has another head"
            )


def read_activation(directory: Path, config: Mapping[str, Any], layout: RerankerFiles, labels: int) -> str:
    """Return the activation: of CrossEncoder's own file, else of config.json in its newer and older form.

    Raises:
        ModelLoadError: it is not supported, or a key is malformed.
    """
    path = directory / "config.json"
    stated = config.get("sentence_transformers")
    if not isinstance(stated, dict | None):
        raise ModelLoadError(f"{path}: sentence_transformers must be an object, found {reprlib.repr(stated)}")
    for key in stated or {}:
        if key not in ("activation_fn", "version"):
            raise ModelLoadError(f"{path}: sentence_transformers.{cut(key)} is not a key that is known")
    if (name := layout.model.get("activation_fn")) is not None:
        path = directory / "config_sentence_transformers.json"
    elif stated and "activation_fn" in stated:
        name = stated["activation_fn"]
    else:
        name = config.get("sbert_ce_default_activation_function")
    if name is None:
        return "Sigmoid" if labels == 1 else "Identity"
    package, _, kind = str(name).rpartition(".")
    if kind not in ACTIVATIONS or not f"{package}.".startswith("torch.nn."):
        raise ModelLoadError(
            f"{path}: activation {cut(repr(name))} is not supported ({', '.join(ACTIVATIONS)} of torch.nn)"
        )
    return kind


def _read_label_names(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the labels; transformers counts them like this, and CrossEncoder where there is no head."""
    named, count = config.get("id2label"), config.get("num_labels")
    if named is not None:
        if not isinstance(named, dict) or not named or (count is not None and count != len(named)):
            raise ModelLoadError(
                f"{path}: id2label must be an object with an entry for each label, found {reprlib.repr(named)}"
            )
        return tuple(map(str, named.values()))
    if count is None:
        names = config.get("architectures")
        classifies = isinstance(names, list) and any(str(name).endswith("ForSequenceClassification") for name in names)
        count = 2 if classifies else 1
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < 1 << 16:
        raise ModelLoadError(f"{path}: num_labels must be a number of labels, found {reprlib.repr(count)}")
    return _number_labels(count)


def _number_labels(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(count))
