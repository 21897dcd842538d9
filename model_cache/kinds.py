"""The kinds of model that can be fetched, and the files that each needs.

Never code, pickles or the weights of other formats: nothing that is fetched can be executed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelKind:
    """One kind of model. Its patterns are compiled when they are first used.

    Attributes:
        marker: the file at the top of a repository or folder that identifies the kind; "" where its weights do.
        needed: pattern of the names of its files.
        weights: pattern of file names of which at least one must be there besides the marker.
        requirement: the files that a repository must have, in words.
    """

    marker: str
    needed: str
    weights: str
    requirement: str

    def needs(self, name: str) -> bool:
        """Return whether a file with this name is one of the model's."""
        return re.fullmatch(self.needed, name) is not None

    def has_weights(self, names: Collection[str]) -> bool:
        """Return whether one of files with these names holds weights of the model."""
        return any(re.fullmatch(self.weights, name) for name in names)

    def matches(self, names: Collection[str]) -> bool:
        """Return whether files with these names can be such a model, judged without their content."""
        return (not self.marker or self.marker in names) and self.has_weights(names)


# The folder of a module as sentence-transformers names it, below a model or below its Router.
_MODULE = r"\d{1,3}_[A-Za-z]{1,40}"
_ROUTED_MODULE = r"[A-Za-z0-9_-]{1,40}_\d{1,3}_[A-Za-z]{1,40}"
# Known answers and the figures of a conversion's fidelity, at the top of a repository.
_FIDELITY_FILES = r"akidb_(answers|fidelity)\.json"
# An encoder's own weights; an ONNX file holds them too.
ENCODER_WEIGHTS = re.compile(r"model(-\d{1,6}-of-\d{1,6})?\.safetensors|model\.safetensors\.index\.json")
_ENCODER_FILES = (
    r"(config|sentence_[a-z-]{1,20}_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens"
    rf"|generation_config|chat_template|adapter_config)\.json|chat_template\.jinja|{ENCODER_WEIGHTS.pattern}"
)

EMBEDDING = ModelKind(
    marker="config.json",
    needed=(
        rf"{_ENCODER_FILES}|{_FIDELITY_FILES}|(config_sentence_transformers|modules)\.json"
        rf"|[A-Za-z0-9_-]{{1,40}}/config\.json|{_MODULE}/model\.safetensors"
        rf"|{_MODULE}/router_config\.json|{_MODULE}/{_ROUTED_MODULE}/(config\.json|model\.safetensors)"
        rf"|router_config\.json|{_ROUTED_MODULE}/({_ENCODER_FILES})|artifact\.metadata"
    ),
    weights=r"[^/]+\.safetensors",
    requirement="config.json, tokenizer.json and model.safetensors",
)
# Models whose first module is a Router: each encoder lies in a folder of its own, and none at the top.
ROUTED = ModelKind(
    marker="router_config.json",
    needed=(
        rf"{_FIDELITY_FILES}|(config_sentence_transformers|modules|router_config)\.json"
        rf"|{_MODULE}/(config\.json|model\.safetensors)|{_ROUTED_MODULE}/({_ENCODER_FILES})"
    ),
    weights=rf"{_ROUTED_MODULE}/[^/]+\.safetensors",
    requirement="modules.json, and config.json, tokenizer.json and model.safetensors of each encoder",
)
# sentence-transformers' static models have no config.json: their table lies beside modules.json or in a folder.
STATIC = ModelKind(
    marker="modules.json",
    needed=(
        rf"{_FIDELITY_FILES}|(config_sentence_transformers|modules|tokenizer)\.json|model\.safetensors"
        r"|[A-Za-z0-9_-]{1,40}/config\.json"
        r"|0_StaticEmbedding/(tokenizer\.json|model\.safetensors)"
    ),
    weights=r"(0_StaticEmbedding/)?model\.safetensors",
    requirement="modules.json, tokenizer.json and model.safetensors",
)
# msgpack, JSON and NumPy arrays; config.cfg may name functions, but only those of installed packages are found.
SPACY = ModelKind(
    marker="config.cfg",
    needed=(
        r"config\.cfg|meta\.json|tokenizer|sentencizer\.json"
        r"|vocab/(strings\.json|vectors|vectors\.cfg|key2row|lookups\.bin)"
        r"|tokenizer/(cfg|pkuseg_proc|pkuseg_model/(features\.msgpack|weights\.npz))"
        r"|[A-Za-z0-9_-]{1,40}/(cfg|model|moves|trees|patterns|patterns\.jsonl|lookups/lookups\.bin)"
    ),
    weights=r"[A-Za-z0-9_-]+/(model|patterns|patterns\.jsonl)",
    requirement="config.cfg, meta.json, vocab/strings.json and a component with a model or patterns",
)

# Trained selectors, by the names that vLLM's semantic-router looks for; a repository holds one or more.
SELECTOR = ModelKind(
    marker="",
    needed=r"(knn|kmeans|svm|mlp)_model\.json",
    weights=r"(knn|kmeans|svm|mlp)_model\.json",
    requirement="one of knn_model.json, kmeans_model.json, svm_model.json and mlp_model.json",
)

# Models for llama.cpp, each in one file; a repository holds the same one in several precisions.
GGUF = ModelKind(
    marker="",
    needed=r"(?i)([^/]+/){0,3}[^/]+\.gguf",
    weights=r"(?i)([^/]+/){0,3}[^/]+\.gguf",
    requirement="a GGUF file",
)


def can_omit_weights(names: Collection[str]) -> bool:
    """Return whether a model of these files can be used without `ENCODER_WEIGHTS`: one encoder, at the top."""
    return EMBEDDING.marker in names and ROUTED.marker not in names


def kind_of(names: Collection[str]) -> ModelKind:
    """Return the kind of model that files with these names make up: an embedding model unless they show another."""
    if SELECTOR.matches(names) and not EMBEDDING.has_weights(names):
        return SELECTOR
    if EMBEDDING.marker in names:
        return EMBEDDING
    if SPACY.marker in names:
        return SPACY
    if ROUTED.marker in names:
        return ROUTED
    if GGUF.matches(names) and not EMBEDDING.has_weights(names):
        return GGUF
    # A model that pools token vectors has a config.json, which an incomplete repository may lack.
    pools = any(name.startswith("1_Pooling/") for name in names)
    return STATIC if STATIC.matches(names) and not pools else EMBEDDING
