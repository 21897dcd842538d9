"""The contents of a reranker's directory: a model for sequence classification, or a language model that says yes or no.

Its files are read as CrossEncoder of sentence-transformers 6.2 reads them. Without modules.json, only config.json and
the tokenizer's files count.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.checkpoint import Checkpoint, check_layers, read_config, read_max_tokens
from akidb_mlx.checkpoint.classifier import read_activation, read_classifier, read_score_modules, refuse_other_heads
from akidb_mlx.checkpoint.files import read_optional_json
from akidb_mlx.checkpoint.head import Head, Pooling
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.modules import EVERY_ROLE
from akidb_mlx.checkpoint.pair_template import ChatTemplate, PairTemplate, QwenTemplate, find_template, message_format
from akidb_mlx.checkpoint.purpose import check_kind_of_routed
from akidb_mlx.checkpoint.quantization import read_quantization
from akidb_mlx.checkpoint.reranker_files import RerankerFiles, read_layout
from akidb_mlx.checkpoint.scoring import Scoring
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, read_tensors
from akidb_mlx.checkpoint.tokenization.files import STANDARD_TOKENS, read_description
from akidb_mlx.checkpoint.tokenization.frame import appends_end_token
from akidb_mlx.checkpoint.tokenization.parsing import parse_tokenizer
from akidb_mlx.errors import ModelLoadError

# The architectures whose rerankers follow one model card: how they frame a pair, and answer.
_WITH_CARD = ("qwen3",)
# The answers whose logits are compared where no file names others.
_ANSWERS = ("yes", "no")


def read_reranker(directory: Path) -> Checkpoint:
    """Read a reranker's configuration and tensor headers. Nothing from it is executed but a template, in a sandbox.

    Raises:
        ModelLoadError: a file is missing or malformed, is not a reranker's, or asks for something that is not
            supported.
    """
    check_kind_of_routed(directory, "CrossEncoder")
    config_path = directory / "config.json"
    config, model_type = read_config(config_path)
    architecture = ARCHITECTURES[model_type]
    architecture.reranker_keys.check(config_path, config)
    encoder_config = parse_config(architecture.config, config)
    layout = read_layout(directory, config)
    tensors = read_tensors(directory, architecture)
    quantization = read_quantization(config_path, config, architecture)
    others: Mapping[str, StoredTensor] = {}
    if layout.answers:
        head = Head(Pooling(("last",)))
        scoring = _read_answers(directory, config, architecture, layout, tensors)
    elif layout.modules:
        head, scoring, others = read_score_modules(directory, config, architecture, layout, tensors)
    else:
        head, scoring = read_classifier(directory, config, encoder_config, architecture, layout, tensors)
    check_layers(config_path, quantization, {**tensors, **others})
    prompts = layout.model.get("prompts") or {}
    if scoring.default_prompt is not None and scoring.default_prompt not in prompts:
        raise ModelLoadError(
            f"{directory / 'config_sentence_transformers.json'}: default_prompt_name "
            f"{cut(scoring.default_prompt)!r} is none of its prompts: {cut(', '.join(prompts))}"
        )
    return Checkpoint(
        directory=directory,
        model_type=model_type,
        config=config,
        encoder_config=encoder_config,
        tensors={**tensors, **others},
        quantization=quantization,
        dtype=float_type(tensors.values()),
        heads={"": head},
        routes=EVERY_ROLE,
        stated_embedder=False,
        prompts=prompts,
        truncate_dim=None,
        max_tokens=read_max_tokens(directory, config, encoder_config, layout.transformer),
        lower_case=layout.transformer.get("do_lower_case") is True,
        scoring=scoring,
    )


def _read_answers(
    directory: Path,
    config: Mapping[str, Any],
    architecture: Architecture,
    layout: RerankerFiles,
    tensors: Mapping[str, StoredTensor],
) -> Scoring:
    head = architecture.language_head
    if head is None:
        raise ModelLoadError(f"{directory}: rerankers of the architecture {config['model_type']} are not supported")
    refuse_other_heads(tensors, (f"{head}.",))
    if not layout.listed and config["model_type"] not in _WITH_CARD:
        raise ModelLoadError(
            f"{directory}: modules.json is missing, and only it says how a reranker of the architecture "
            f"{config['model_type']} frames a pair and which tokens answer; take the files of sentence-transformers too"
        )
    if not layout.listed and architecture.final_token and appends_end_token(directory, architecture.final_token):
        raise ModelLoadError(
            f"{directory} is an embedding model, and not a reranker: its tokenizer ends every text with "
            f"{architecture.final_token}; use akidb_mlx.EmbeddingService"
        )
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ModelLoadError(f"{directory / 'config.json'}: tie_word_embeddings must be true or false")
    layer = head if f"{head}.weight" in tensors or not tied else "embed_tokens"
    table = tensors.get(f"{layer}.weight")
    if table is None or not table.shape:
        raise ModelLoadError(f"{directory}: {layer}.weight, which gives the logits of tokens, is missing")
    tokens = layout.tokens or _find_answers(directory)
    if max(tokens) >= table.shape[0]:
        raise ModelLoadError(f"{directory}: the tokens {tokens} are compared, and the model has {table.shape[0]}")
    return Scoring(
        labels=1,
        label_names=("LABEL_0",),
        activation=read_activation(directory, config, layout, 1),
        source="LogitScore" if layout.listed else f"the model card of {config['model_type']}'s rerankers",
        tokens=tokens,
        token_layer=layer,
        template=_read_template(directory, layout),
        default_prompt=layout.model.get("default_prompt_name"),
    )


def _find_answers(directory: Path) -> tuple[int, ...]:
    """Return the tokens of the answers in the vocabulary."""
    path = directory / "tokenizer.json"
    tokenizer = parse_tokenizer(path, *read_description(path))
    tokens = [token for answer in _ANSWERS if (token := tokenizer.token_to_id(answer)) is not None]
    if len(tokens) < len(_ANSWERS):
        raise ModelLoadError(f"{path}: the answers {', '.join(_ANSWERS)} are not both tokens, as a reranker's are")
    return tuple(tokens)


def _read_template(directory: Path, layout: RerankerFiles) -> PairTemplate | None:
    """Return the template that makes one text of a pair; None where the files say that the tokenizer frames pairs."""
    found = find_template(directory)
    modalities = layout.transformer.get("modality_config") or {}
    if layout.listed:
        if "message" not in modalities:
            return None
        if found is None:
            raise ModelLoadError(f"{directory}: chat_template.jinja, which makes one text of a pair, is missing")
    elif found is None or not all(role in found[1] for role in ("query", "document")):
        return QwenTemplate()  # CrossEncoder has no rule for such files
    path, source = found
    form = (modalities.get("message") or {}).get("format", "auto")
    if form not in ("flat", "structured", "auto"):
        raise ModelLoadError(f"{directory}: the format {reprlib.repr(form)} of messages is not supported")
    arguments = dict((layout.transformer.get("processing_kwargs") or {}).get("chat_template") or {})
    if arguments.pop("restore_suffix", True) is not True:
        raise ModelLoadError(f"{directory}: restore_suffix = false of processing_kwargs.chat_template is not supported")
    if clash := {"padding", "truncation", "max_length", "return_tensors", "tools", "documents"} & arguments.keys():
        raise ModelLoadError(f"{directory}: processing_kwargs.chat_template.{clash.pop()} is not supported")
    tokenizer = read_optional_json(directory / "tokenizer_config.json")
    special = {key: tokenizer[key] for key in STANDARD_TOKENS if tokenizer.get(key)}
    named = {key: token.get("content") if isinstance(token, dict) else token for key, token in special.items()}
    return ChatTemplate(path, source, message_format(source) if form == "auto" else form, {**named, **arguments})
