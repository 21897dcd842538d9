"""A tokenizer.json and a tokenizer_config.json that agree, of each kind that the architectures use."""

import json
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from tests.support import GOLDENS

Json = dict[str, Any]
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer.

    Attributes:
        tokenizer_class: the class of transformers that writes it.
        names: its special tokens, by their keys in tokenizer_config.json.
        before: the special tokens before a text.
        after: those after it.
    """

    tokenizer_class: str
    names: dict[str, str]
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def special_tokens(self) -> list[str]:
        """Return the special tokens, each once."""
        return list(dict.fromkeys(self.names.values()))


def _named(**names: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in names.items()}


_BERT = _named(pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]")
_ROBERTA = _named(bos="<s>", pad="<pad>", eos="</s>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")
_GEMMA = _named(pad="<pad>", eos="<eos>", bos="<bos>", unk="<unk>", mask="<mask>")
KINDS = {
    "bert": Kind("BertTokenizer", _BERT, ("[CLS]",), ("[SEP]",)),
    "distilbert": Kind("DistilBertTokenizer", _BERT, ("[CLS]",), ("[SEP]",)),
    "roberta": Kind("RobertaTokenizer", _ROBERTA, ("<s>",), ("</s>",)),
    "xlm-roberta": Kind("XLMRobertaTokenizer", _ROBERTA, ("<s>",), ("</s>",)),
    "qwen2": Kind("Qwen2Tokenizer", _named(eos="<|endoftext|>", pad="<|endoftext|>"), (), ()),
    "qwen3": Kind("Qwen2Tokenizer", _named(eos="<|endoftext|>", pad="<|endoftext|>"), (), ("<|endoftext|>",)),
    "gemma3_text": Kind("GemmaTokenizer", _GEMMA, ("<bos>",), ("<eos>",)),
}


def make_tokenizer(name: str, rng: Random) -> tuple[Json, Json]:
    """Return the two files of the kind of tokenizer that an architecture has."""
    kind = KINDS[name]
    config: Json = dict(kind.names)
    if name in ("bert", "distilbert"):
        lower = rng.random() < 0.5
        content = {**_golden("tiny-bert"), "normalizer": _bert_normalizer(lower)}
        config["do_lower_case"] = lower
    elif name == "xlm-roberta":
        content = _unigram(kind)
    elif name == "gemma3_text":
        content = _fallback_bpe(kind)
    else:
        content = _byte_bpe(kind)
    content = json.loads(json.dumps(content))  # so that edits leave the originals alone
    content["added_tokens"] = []
    ids = token_ids(content)
    content["added_tokens"] = [
        {"id": ids[token], "content": token, "normalized": False, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for token in sorted(kind.special_tokens, key=ids.__getitem__)
    ]
    if name in ("roberta", "xlm-roberta"):
        content["added_tokens"][-1]["lstrip"] = True  # <mask>, as published
        config["mask_token"] = {"__type": "AddedToken", **content["added_tokens"][-1]}
        del config["mask_token"]["id"]
    content["post_processor"] = template(kind.before, kind.after, ids)
    if rng.random() < 0.5:
        config["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in content["added_tokens"]
        }
    # Without a class, the architecture's own is taken, which is the same.
    named = rng.choice((kind.tokenizer_class, f"{kind.tokenizer_class}Fast", None, "PreTrainedTokenizerFast"))
    if named is not None:
        config["tokenizer_class"] = named
    return content, config


def token_ids(content: Json) -> dict[str, int]:
    """Return the ids of a tokenizer's vocabulary and added tokens."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in content["added_tokens"]}


def template(before: tuple[str, ...], after: tuple[str, ...], ids: dict[str, int]) -> Json:
    """Return the post-processor that puts tokens around a text."""

    def special(token: str) -> Json:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    single = [*map(special, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, after)]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, *map(special, after)]
    tokens = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (*before, *after)}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def _bert_normalizer(lower: bool) -> Json:
    flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lower}
    return {"type": "BertNormalizer", **flags}


def _byte_bpe(kind: Kind) -> Json:
    content = _golden("tiny-qwen3")
    model = content["model"]
    old = {token["content"] for token in content["added_tokens"]}
    words = [token for token in model["vocab"] if token not in old]
    roberta = kind.tokenizer_class == "RobertaTokenizer"
    # RoBERTa's special tokens are in the vocabulary, <mask> at its end; Qwen's are added after it.
    tokens = [*kind.special_tokens[:-1], *words, "<mask>"] if roberta else [*words, *kind.special_tokens]
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": roberta}
    split = {"type": "Split", "pattern": {"Regex": _QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
    return content | {
        "normalizer": None if roberta else {"type": "NFC"},
        "pre_tokenizer": bytes_only if roberta else {"type": "Sequence", "pretokenizers": [split, bytes_only]},
        "model": model | {"vocab": {token: number for number, token in enumerate(tokens)}},
    }


def _fallback_bpe(kind: Kind) -> Json:
    """Return Gemma's kind of vocabulary: words of characters and, for what has no token, bytes."""
    merges = [[part.replace("Ġ", "▁") for part in pair] for pair in _golden("tiny-gemma3")["model"]["merges"]]
    merges = [pair for pair in merges if all((part.replace("▁", "")).isascii() for part in pair)]
    letters = sorted({letter for pair in merges for part in pair for letter in part})
    tokens = [*kind.special_tokens, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokens += ["".join(pair) for pair in merges]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": split,
        "decoder": None,
        "model": model | {"vocab": vocabulary, "merges": merges},
    }


def _unigram(kind: Kind) -> Json:
    words = [token for token in _golden("tiny-bert")["model"]["vocab"] if not token.startswith("[")]
    pieces = dict.fromkeys(word.removeprefix("##") if word.startswith("##") else f"▁{word}" for word in words)
    pieces |= dict.fromkeys(letter for piece in list(pieces) for letter in (*piece, *piece.upper()))
    # <mask> is the last. Longer pieces are the likelier ones.
    scored = [[piece, -12.0 + 2 * min(len(piece), 5) - number / 1000] for number, piece in enumerate(pieces)]
    first = [[token, 0.0] for token in kind.special_tokens[:-1]]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [*first, *scored, ["<mask>", 0.0]], "byte_fallback": False},
    }


@cache
def _golden(model: str) -> Json:
    content: Json = json.loads((GOLDENS / model / "tokenizer.json").read_text(encoding="utf-8"))
    return content
