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
from akidb_mlx.checkpoint.files import read_optional_json
from akidb_mlx.checkpoint.head import Head, Pooling
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.modules import EVERY_ROLE
from akidb_mlx.checkpoint.pair_template import ChatTemplate, PairTemplate, QwenTemplate, find_template, message_format
from akidb_mlx.checkpoint.purpose import find_head
from akidb_mlx.checkpoint.quantization import read_quantization
from akidb_mlx.checkpoint.reranker_files import RerankerFiles, read_layout
from akidb_mlx.checkpoint.scoring import ACTIVATIONS, Scoring
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
    config_path = directory / "config.json"
    config, model_type = read_config(config_path)
    architecture = ARCHITECTURES[model_type]
    architecture.reranker_keys.check(config_path, config)
    encoder_config = parse_config(architecture.config, config)
    layout = read_layout(directory, config)
    tensors = read_tensors(directory, architecture)
    quantization = read_quantization(config_path, config, architecture)
    check_layers(config_path, quantization, tensors)
    scoring = (_read_answers if layout.answers else _read_classifier)(directory, config, architecture, layout, tensors)
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
        tensors=tensors,
        quantization=quantization,
        dtype=float_type(tensors.values()),
        heads={"": Head(Pooling(("last",) if layout.answers else ("cls",), source=scoring.source))},
        routes=EVERY_ROLE,
        stated_embedder=False,
        prompts=prompts,
        truncate_dim=None,
        max_tokens=read_max_tokens(directory, config, encoder_config, layout.transformer),
        lower_case=layout.transformer.get("do_lower_case") is True,
        scoring=scoring,
    )


def _read_classifier(
    directory: Path,
    config: Mapping[str, Any],
    architecture: Architecture,
    layout: RerankerFiles,
    tensors: Mapping[str, StoredTensor],
) -> Scoring:
    layers = architecture.classifier
    if layers is None:
        raise ModelLoadError(f"{directory}: rerankers of the architecture {config['model_type']} are not supported")
    _refuse_other_heads(tensors, (f"{layers.dense}.", f"{layers.output}."))
    if f"{layers.output}.weight" not in tensors or len(tensors[f"{layers.output}.weight"].shape) != 2:
        raise ModelLoadError(
            f"{directory} is not a reranker: it has no {layers.output}.weight; use akidb_mlx.EmbeddingService for an "
            "embedding model"
        )
    if "message" in (layout.transformer.get("modality_config") or {}) or (
        not layout.listed and find_template(directory) is not None
    ):
        raise ModelLoadError(f"{directory}: pairs in a chat template are supported for language models only")
    names = _read_label_names(directory / "config.json", config)
    stored = tensors[f"{layers.output}.weight"].shape[0]
    if stored != len(names):
        raise ModelLoadError(
            f"{directory / 'config.json'} says that there are {len(names)} labels (id2label or num_labels), and "
            f"{layers.output}.weight has {stored} rows"
        )
    return Scoring(
        labels=stored,
        label_names=names,
        activation=_read_activation(directory, config, layout, stored),
        source=f"{layers.output} of {config['model_type']}",
        default_prompt=layout.model.get("default_prompt_name"),
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
    _refuse_other_heads(tensors, (f"{head}.",))
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
        activation=_read_activation(directory, config, layout, 1),
        source="LogitScore" if layout.listed else f"the model card of {config['model_type']}'s rerankers",
        tokens=tokens,
        token_layer=layer,
        template=_read_template(directory, layout),
        default_prompt=layout.model.get("default_prompt_name"),
    )


def _refuse_other_heads(tensors: Mapping[str, StoredTensor], own: tuple[str, ...]) -> None:
    for name, tensor in tensors.items():
        kind = find_head(name)
        if kind is not None and not name.startswith(own):
            raise ModelLoadError(
                f"{tensor.file}: {cut(tensor.key)} belongs to the head of {kind}, and this reranker has another head"
            )


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
    return tuple(f"LABEL_{number}" for number in range(count))


def _read_activation(directory: Path, config: Mapping[str, Any], layout: RerankerFiles, labels: int) -> str:
    """Return the activation: of CrossEncoder's own file, else of config.json in its newer and older form."""
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
