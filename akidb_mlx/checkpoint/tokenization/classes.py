"""The tokenizer classes of transformers, which keep a tokenizer.json's vocabulary and build the rest themselves.

So tokenizer_config.json, which names the class and holds its arguments, may contradict tokenizer.json and is right.
Transformers 5 is the reference; these are its classes for the architectures in `ARCHITECTURES`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from akidb_mlx.checkpoint.tokenization.files import TokenizerFiles
from akidb_mlx.errors import ModelLoadError

# Classes that take a tokenizer.json as it is.
_PLAIN = ("TokenizersBackend", "PreTrainedTokenizer")
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerClass:
    """The part of a tokenizer that its class decides.

    Attributes:
        model: the kind of vocabulary that the class is for.
        special_tokens: the special tokens that it has unless the configuration says otherwise.
        build: sets up a tokenizer that has the vocabulary only, from the configuration and tokenizer.json.
        frame: names of the special tokens before and after a text; None: tokenizer.json's post-processor says it.
        separators: how many of the tokens after a text stand between the two of a pair.
        token_types: whether the model is told which token belongs to which text of a pair.
        resets_special_tokens: whether special tokens lose what was said of the spaces around them.
    """

    model: str
    special_tokens: Mapping[str, str | None]
    build: Callable[[Tokenizer, Mapping[str, Any], TokenizerFiles], None]
    frame: tuple[str, str] | None = None
    separators: int = 1
    token_types: bool = False
    resets_special_tokens: bool = False

    def rebuild(self, loaded: Tokenizer, config: Mapping[str, Any], files: TokenizerFiles) -> Tokenizer:
        """Return a tokenizer with the vocabulary of another, and no added tokens.

        Raises:
            ModelLoadError: the vocabulary is not of the kind that the class is for.
        """
        model = type(loaded.model).__name__
        if model != self.model:
            raise ModelLoadError(f"{files.path} has a {model} vocabulary, and its tokenizer_class is for {self.model}")
        tokenizer = Tokenizer(loaded.model)
        self.build(tokenizer, config, files)
        return tokenizer


def find_class(path: Path, tokenizer_class: Any, model_type: str) -> TokenizerClass | None:
    """Return the class that transformers would choose; None for one that takes tokenizer.json as it is.

    Args:
        path: tokenizer_config.json, for errors.
        tokenizer_class: its `tokenizer_class`, or config.json's.
        model_type: the architecture, whose usual class is taken where none is named.

    Raises:
        ModelLoadError: the class is not known.
    """
    if model_type in _IMPOSED:
        tokenizer_class = _IMPOSED[model_type]
    name = _OF_ARCHITECTURES.get(model_type, _PLAIN[0]) if tokenizer_class is None else tokenizer_class
    plain_name = str(name).removesuffix("Fast")
    if plain_name in _PLAIN:
        return None
    if plain_name not in _CLASSES:
        raise ModelLoadError(
            f"{path}: tokenizer_class {str(name)[:80]!r} is not supported ({', '.join([*_CLASSES, *_PLAIN])}); "
            "save the tokenizer as PreTrainedTokenizerFast if its tokenizer.json is all there is to it"
        )
    return _CLASSES[plain_name]


def _build_bert(tokenizer: Tokenizer, config: Mapping[str, Any], _files: TokenizerFiles) -> None:
    model = tokenizer.model
    model.unk_token = str(config["unk_token"])
    model.continuing_subword_prefix = "##"
    model.max_input_chars_per_word = 100
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(config, "tokenize_chinese_chars", default=True),
        strip_accents=config.get("strip_accents"),
        lowercase=_flag(config, "do_lower_case", default=True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _build_roberta(tokenizer: Tokenizer, config: Mapping[str, Any], files: TokenizerFiles) -> None:
    _set_bpe(tokenizer, files, unk_token=None, fuse_unk=False, byte_fallback=False)
    prefix_space = _flag(config, "add_prefix_space", default=False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)


def _build_qwen2(tokenizer: Tokenizer, config: Mapping[str, Any], files: TokenizerFiles) -> None:
    _set_bpe(tokenizer, files, unk_token=None, fuse_unk=False, byte_fallback=False)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated", invert=False)
    prefix_space = _flag(config, "add_prefix_space", default=False)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])


def _build_gemma(tokenizer: Tokenizer, config: Mapping[str, Any], files: TokenizerFiles) -> None:
    _set_bpe(tokenizer, files, unk_token=str(config["unk_token"]), fuse_unk=True, byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)


def _build_xlm_roberta(tokenizer: Tokenizer, config: Mapping[str, Any], files: TokenizerFiles) -> None:
    stored = files.description["model"]
    if stored.get("unk_id") != 3 or stored.get("byte_fallback"):
        raise ModelLoadError(f"{files.path}: the unknown token of XLMRobertaTokenizer is 3, without byte_fallback")
    normalizer = files.description.get("normalizer") or {}
    parts = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    maps = [part["precompiled_charsmap"] for part in parts if part.get("type") == "Precompiled"]
    if maps:
        tokenizer.normalizer = normalizers.Precompiled(base64.b64decode(maps[0]))
    scheme = "always" if _flag(config, "add_prefix_space", default=True) else "never"
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])


def _flag(config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    # A null is no missing key: the reference's classes take it for false.
    return bool(config.get(key, default))


def _set_bpe(tokenizer: Tokenizer, files: TokenizerFiles, **options: Any) -> None:
    stored = files.description["model"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if stored.get(key):  # would change what the merges make
            raise ModelLoadError(f"{files.path}: {key} {stored[key]!r} is not supported with its tokenizer_class")
    for key, value in {"dropout": None, "ignore_merges": False, **options}.items():
        setattr(tokenizer.model, key, value)


_BERT = TokenizerClass(
    model="WordPiece",
    special_tokens={
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    build=_build_bert,
    frame=("cls_token", "sep_token"),
    token_types=True,
)
_DISTILBERT = replace(_BERT, token_types=False)
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_CLASSES = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _DISTILBERT,
    "MPNetTokenizer": TokenizerClass(
        "WordPiece", _ROBERTA_TOKENS | {"unk_token": "[UNK]"}, _build_bert, ("cls_token", "sep_token"), 2
    ),
    "RobertaTokenizer": TokenizerClass("BPE", _ROBERTA_TOKENS, _build_roberta, ("cls_token", "sep_token"), 2),
    "XLMRobertaTokenizer": TokenizerClass(
        "Unigram", _ROBERTA_TOKENS, _build_xlm_roberta, ("bos_token", "eos_token"), 2
    ),
    "Qwen2Tokenizer": TokenizerClass(
        "BPE",
        dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
        _build_qwen2,
        resets_special_tokens=True,
    ),
    "GemmaTokenizer": TokenizerClass(
        "BPE",
        {
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        _build_gemma,
    ),
}
# The usual class of each architecture.
_OF_ARCHITECTURES = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "mpnet": "MPNetTokenizer",
    "nomic_bert": "BertTokenizer",
    "gte": "XLMRobertaTokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gemma3_text": "GemmaTokenizer",
    "embedding_gemma2": "GemmaTokenizer",
    "embedding_gemma2_text": "GemmaTokenizer",
}
# Architectures whose published files name wrong classes, and the class that transformers takes instead.
_IMPOSED = {
    "modernbert": _PLAIN[0],
    "qwen2": "Qwen2Tokenizer",
    "mistral": _PLAIN[0],
    "ministral3": _PLAIN[0],
}
