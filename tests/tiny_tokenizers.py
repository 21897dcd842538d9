"""Random tiny tokenizers of each class, whose files contradict each other in the ways that real ones do.

python -m tests.tiny_tokenizers     writes what transformers' AutoTokenizer makes of some of them, for machines
                                    without transformers
"""

import json
import random
import tempfile
from itertools import pairwise
from pathlib import Path

from tests.support import GOLDENS, copy_model

FROZEN = GOLDENS / "tokenizers.json"
FROZEN_SEEDS = range(6)
MAX_TOKENS = 16
CORPUS = "the harbour master kept a ledger of ships naïve café über straße İstanbul 12 345 don't élan fiancée " * 2
TEXTS = [
    "",
    " ",
    "the harbour master",
    "The HARBOUR Master kept a Ledger",
    "  two  spaces and a\ttab\nline \r\n",
    "naïve café über Straße İstanbul ﬁancée",
    "e\u0301lan and n\u0303 combining",
    "漢字 and かな",
    "12345 don't I'LL",
    "🚢 ships",
    "[MASK] [CLS]the<s>and</s> <mask>ships <|endoftext|>",
    "xkept keptx kept. Kept lonely token lonely  token",
    "the harbour master kept a ledger of ships " * 8,
    "\ufeffthe \u00a0 \u200b \x00",
]
# Class in tokenizer_config.json, the model whose files surround it, and the kind of its vocabulary.
CLASSES = {
    "BertTokenizer": ("tiny-bert", "WordPiece"),
    "DistilBertTokenizerFast": ("tiny-distilbert", "WordPiece"),
    "RobertaTokenizer": ("tiny-roberta", "BPE"),
    "XLMRobertaTokenizerFast": ("tiny-roberta", "Unigram"),
    "Qwen2TokenizerFast": ("tiny-qwen3", "BPE"),
    "GemmaTokenizer": ("tiny-gemma3", "fallback BPE"),
    "PreTrainedTokenizerFast": ("tiny-bert", None),
    "": ("tiny-bert", "WordPiece"),
}
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
GEMMA_TOKENS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
QWEN_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
TOKENS_OF = {
    "WordPiece": BERT_TOKENS,
    "Unigram": ROBERTA_TOKENS,
    "fallback BPE": GEMMA_TOKENS,
}


class Chance:
    """Random choices that are the same with every version of Python, which promises that for `random()` only."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def choice(self, items):
        return items[int(self.random() * len(items))]

    def randint(self, low, high):
        return low + int(self.random() * (high - low + 1))

    def sample(self, items, count):
        return sorted(items, key=lambda _: self.random())[:count]

    def uniform(self, low, high):
        return low + self.random() * (high - low)


def byte_alphabet():
    """The character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def merged(rng, alphabet, words, count):
    """Merges of neighbours in words that are written in an alphabet, and the tokens that they make."""
    pieces = [list(word) for word in words]
    merges, tokens = [], []
    for _ in range(count):
        pairs = sorted({pair for word in pieces for pair in pairwise(word)} - set(merges))
        if not pairs:
            break
        first, second = rng.choice(pairs)
        merges.append((first, second))
        if first + second not in tokens and first + second not in alphabet:
            tokens.append(first + second)
        for word in pieces:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == (first, second):
                    word[at : at + 2] = [first + second]
                at += 1
    return merges, tokens


def vocabulary(rng, kind, special):
    """The `model` of a tokenizer.json, its pre-tokenizer and its normalizer as its class would write them."""
    special = list(dict.fromkeys(special))
    words = CORPUS.split()
    if kind == "WordPiece":
        letters = sorted(set(CORPUS + CORPUS.lower() + CORPUS.upper() + "漢字,.'[]") - {" "})
        pieces = {word[: rng.randint(1, len(word))] for word in words} | {"##" + letter for letter in letters}
        pieces |= {"##" + word[rng.randint(1, len(word) - 1) :] for word in words if len(word) > 1}
        tokens = rng.sample([*special, *sorted({*letters, *pieces})], 1000)
        model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        model |= {"max_input_chars_per_word": 100, "vocab": {token: n for n, token in enumerate(tokens)}}
        return model, {"type": "BertPreTokenizer"}, None
    if kind == "Unigram":
        letters = sorted(set(CORPUS + "漢字,.'▁") - {" "})
        pieces = sorted(
            {"▁" + word[: rng.randint(1, len(word))] for word in words} | {word[1:] for word in words} - {""}
        )
        scored = [[piece, -rng.uniform(1, 12)] for piece in [*letters, *(p for p in pieces if p not in letters)]]
        first = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
        model = {"type": "Unigram", "unk_id": 3, "vocab": [*first, *scored, ["<mask>", 0.0]], "byte_fallback": False}
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        return model, {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}, None
    if kind == "fallback BPE":
        letters = sorted(set(CORPUS + "▁") - {" "})
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)] + letters
        written = ["▁" + word for word in words] + words
        normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        pre_tokenizer = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    else:
        codes = byte_alphabet()
        alphabet = sorted(codes.values())
        written = ["".join(codes[byte] for byte in f" {word}".encode()) for word in words]
        normalizer = {"type": "NFC"}
        pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges, tokens = merged(rng, alphabet, written, 80)
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>" if kind == "fallback BPE" else None}
    model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": kind == "fallback BPE"}
    model |= {"byte_fallback": kind == "fallback BPE", "ignore_merges": False}
    model |= {"vocab": {token: n for n, token in enumerate([*special, *alphabet, *tokens])}}
    return model | {"merges": [list(pair) for pair in merges]}, pre_tokenizer, normalizer


def added(rng, content, special):
    flags = {flag: rng.random() < 0.3 for flag in ("single_word", "lstrip", "rstrip")}
    return {"content": content, **flags, "normalized": not special and rng.random() < 0.7, "special": special}


def template(before, after, ids):
    pieces = [{"SpecialToken": {"id": token, "type_id": 0}} for token in before]
    pieces += [{"Sequence": {"id": "A", "type_id": 0}}]
    pieces += [{"SpecialToken": {"id": token, "type_id": 0}} for token in after]
    tokens = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (*before, *after)}
    return {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": tokens}


def write_tokenizer(name: str, seed: int, into: Path) -> Path:
    """A model directory with a random tokenizer of a class, whose files contradict each other."""
    rng = Chance(f"{name} {seed}")
    base, kind = CLASSES[name]
    kind = kind or rng.choice(["WordPiece", "BPE", "fallback BPE", "Unigram"])
    roberta = kind == "BPE" and base == "tiny-roberta"
    named = ROBERTA_TOKENS if roberta else TOKENS_OF.get(kind, QWEN_TOKENS)
    model, pre_tokenizer, normalizer = vocabulary(rng, kind, named.values())
    entries = model["vocab"]
    ids = {entry[0]: n for n, entry in enumerate(entries)} if kind == "Unigram" else dict(entries)
    rebuilt = name != "PreTrainedTokenizerFast"
    if kind == "WordPiece":
        normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": rng.random() < 0.5}
        normalizer |= {"strip_accents": rng.choice([None, True, False]), "lowercase": rng.random() < 0.5}
    elif rebuilt and rng.random() < 0.3:
        normalizer = {"type": "Lowercase"}
    specials = list(dict.fromkeys(named.values()))
    around = (rng.choice(specials), rng.choice(specials))
    processor = rng.choice([None, template(around[:1], around[1:], ids), template([], around[1:], ids)])
    new = rng.sample(["lonely token", "kept", "🚢", "LEDGER", "ships "], rng.randint(0, 3))
    in_file = [added(rng, token, True) | {"normalized": False} for token in specials if rng.random() < 0.8]
    in_file += [added(rng, token, rng.random() < 0.5) for token in new if rng.random() < 0.5]
    number = max(ids.values()) + 1
    for token in new:
        if token not in ids:
            ids[token] = number
            number += 1
    # The library numbers new tokens in the order of the file.
    for token in in_file:
        token["id"] = ids[token["content"]]
    config = dict(named) | {"tokenizer_class": name, "model_max_length": MAX_TOKENS}
    if not name:
        del config["tokenizer_class"]
    for key, values in {
        "do_lower_case": [True, False],
        "strip_accents": [True, False, None],
        "tokenize_chinese_chars": [True, False],
        "add_prefix_space": [True, False],
        "truncation_side": ["left", "right"],
        "split_special_tokens": [True, False],
        "add_bos_token": [True, False],
        "add_eos_token": [True, False],
    }.items():
        if rng.random() < 0.4:
            config[key] = rng.choice(values)
    if rng.random() < 0.3:
        del config[rng.choice(sorted(named))]
    if rng.random() < 0.3:
        config["additional_special_tokens"] = [rng.choice([*new, "<extra>"])]
    if rng.random() < 0.2:
        config["image_token"] = "<image>"
    directory = copy_model(base, into)
    if rng.random() < 0.6:
        decoder = [added(rng, token, token in specials) for token in (*specials, *new) if rng.random() < 0.9]
        config["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in decoder}
    else:
        if rng.random() < 0.5:
            (directory / "added_tokens.json").write_text(json.dumps({token: ids[token] for token in new}))
        special_map = {key: added(rng, token, True) if rng.random() < 0.3 else token for key, token in named.items()}
        (directory / "special_tokens_map.json").write_text(json.dumps(special_map))
    truncation = {"direction": rng.choice(["Left", "Right"]), "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    description = {
        "version": "1.0",
        "truncation": rng.choice([None, truncation]),
        "padding": None,
        "added_tokens": sorted(in_file, key=lambda token: token["id"]),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": processor,
        "decoder": None,
        "model": model,
    }
    (directory / "tokenizer.json").write_text(json.dumps(description))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    config_path = directory / "config.json"
    changes = {"model_type": "xlm-roberta"} if kind == "Unigram" and roberta is False and base == "tiny-roberta" else {}
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | changes))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}))
    return directory


def reference_ids(directory: Path) -> list[list[int]]:
    """Return the token ids that transformers gives the texts, as sentence-transformers asks it to."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in TEXTS]


def main() -> None:
    frozen = {}
    for name in CLASSES:
        for seed in FROZEN_SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                frozen[f"{name} {seed}"] = reference_ids(write_tokenizer(name, seed, Path(folder)))
    FROZEN.write_text(json.dumps(frozen, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
