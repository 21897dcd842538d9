"""The kinds of model that can be fetched, and the files that each needs.

Never code, pickles or the weights of other formats: nothing that is fetched can be executed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelKind:
    """One kind of model.

    Attributes:
        marker: the file at the top of a repository or folder that identifies the kind.
        needed: pattern of the names of its files.
        weights: pattern of file names of which at least one must be there besides the marker.
        requirement: the files that a repository must have, in words.
    """

    marker: str
    needed: re.Pattern[str]
    weights: re.Pattern[str]
    requirement: str

    def matches(self, names: Collection[str]) -> bool:
        """Return whether files with these names can be such a model, judged without their content."""
        return self.marker in names and any(map(self.weights.fullmatch, names))


# The folder of a module as sentence-transformers names it, below a model or below its Router.
_MODULE = r"\d{1,3}_[A-Za-z]{1,40}"
_ROUTED_MODULE = r"[A-Za-z0-9_-]{1,40}_\d{1,3}_[A-Za-z]{1,40}"
# The files of a module with a tokenizer of its own.
_TOKENIZED = (
    r"((config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|sentence_bert_config)\.json"
    r"|model\.safetensors)"
)
# At the top of a repository, it means that even the encoder is one of each route's modules.
ROUTER = "router_config.json"
ROUTER_FIRST = (
    f"is asymmetric from its encoders on: its first module is a Router ({ROUTER}), whose encoders lie in folders of "
    "their own, which is not supported; save each route as a model of its own: "
    "SentenceTransformer(modules=[*model[0].sub_modules['query'], *list(model)[1:]], prompts=model.prompts)"
    ".save_pretrained(…)"
)

EMBEDDING = ModelKind(
    marker="config.json",
    needed=re.compile(
        r"(config|config_sentence_transformers|sentence_[a-z-]{1,20}_config|modules|tokenizer|tokenizer_config"
        r"|special_tokens_map|added_tokens|generation_config|chat_template|adapter_config)\.json|chat_template\.jinja"
        r"|model(-\d{1,6}-of-\d{1,6})?\.safetensors|model\.safetensors\.index\.json"
        rf"|[A-Za-z0-9_-]{{1,40}}/config\.json|{_MODULE}/model\.safetensors"
        rf"|{_MODULE}/router_config\.json|{_MODULE}/{_ROUTED_MODULE}/(config\.json|model\.safetensors)"
        rf"|router_config\.json|{_ROUTED_MODULE}/{_TOKENIZED}|artifact\.metadata"
    ),
    weights=re.compile(r"[^/]+\.safetensors"),
    requirement="config.json, tokenizer.json and model.safetensors",
)
# sentence-transformers' static models have no config.json: their table lies beside modules.json or in a folder.
STATIC = ModelKind(
    marker="modules.json",
    needed=re.compile(
        r"(config_sentence_transformers|modules|tokenizer)\.json|model\.safetensors|[A-Za-z0-9_-]{1,40}/config\.json"
        r"|0_StaticEmbedding/(tokenizer\.json|model\.safetensors)"
    ),
    weights=re.compile(r"(0_StaticEmbedding/)?model\.safetensors"),
    requirement="modules.json, tokenizer.json and model.safetensors",
)
# Sparse models whose queries are looked up in a table, while documents pass an encoder.
ROUTED = ModelKind(
    marker=ROUTER,
    needed=re.compile(rf"(config_sentence_transformers|modules|router_config)\.json|{_ROUTED_MODULE}/{_TOKENIZED}"),
    weights=re.compile(r"[A-Za-z0-9_-]{1,40}_\d{1,3}_SparseStaticEmbedding/model\.safetensors"),
    requirement="modules.json, router_config.json, and a folder with its files for each module",
)
# msgpack, JSON and NumPy arrays; config.cfg may name functions, but only those of installed packages are found.
SPACY = ModelKind(
    marker="config.cfg",
    needed=re.compile(
        r"config\.cfg|meta\.json|tokenizer|sentencizer\.json"
        r"|vocab/(strings\.json|vectors|vectors\.cfg|key2row|lookups\.bin)"
        r"|tokenizer/(cfg|pkuseg_proc|pkuseg_model/(features\.msgpack|weights\.npz))"
        r"|[A-Za-z0-9_-]{1,40}/(cfg|model|moves|trees|patterns|patterns\.jsonl|lookups/lookups\.bin)"
    ),
    weights=re.compile(r"[A-Za-z0-9_-]+/(model|patterns|patterns\.jsonl)"),
    requirement="config.cfg, meta.json, vocab/strings.json and a component with a model or patterns",
)


def kind_of(names: Collection[str]) -> ModelKind:
    """Return the kind of model that files with these names make up: an embedding model unless they show another."""
    if EMBEDDING.marker in names:
        return EMBEDDING
    if SPACY.marker in names:
        return SPACY
    if ROUTED.matches(names):
        return ROUTED
    # A model that pools token vectors has a config.json, which an incomplete repository may lack.
    pools = any(name.startswith("1_Pooling/") for name in names)
    return STATIC if STATIC.matches(names) and not pools else EMBEDDING
