"""Hostile tokenizer files: an error within a bound, and no key that is passed over (faults 29 and 30)."""

import base64
import json

import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.errors import ModelLoadError
from tests.support import copy_model, edit_json, run_python

LOAD = """
import resource, sys
from pathlib import Path
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.errors import ModelLoadError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
try:
    TextTokenizer(read_checkpoint(Path(sys.argv[1])))
except ModelLoadError as error:
    print("refused", error)
"""


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def precompiled(*strings):
    content = (0).to_bytes(4, "little") + b"".join(string.encode() + b"\0" for string in strings)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def normalizers(*parts):
    return {"normalizer": {"type": "Sequence", "normalizers": list(parts)}}


def pre_tokenizers(*parts):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(parts)}}


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
# Each makes a terabyte of one letter, in 2 kB.
HOSTILE = {
    "doubling": normalizers(*[replace("a", "aa")] * 40),
    "doubling in turns": normalizers(*[replace("a", "bb"), replace("b", "aa")] * 20),
    "an added token": normalizers(*[replace("<", "<<")] * 40),
    "regular expressions": normalizers(*[replace("a|b", "aa", "Regex")] * 40),
    "classes": normalizers(*[replace("[ab]", "aa", "Regex")] * 40),
    "between characters": normalizers(*[replace("(?=.)", "x", "Regex")] * 40),
    "prepending": normalizers(*[{"type": "Prepend", "prepend": "a" * 1000}] * 7),
    "bytes of bytes": normalizers(replace("a", "é"), *[{"type": "ByteLevel"}] * 40),
    "nested": normalizers(*[normalizers(*[replace("a", "aa")] * 4)["normalizer"]] * 10),
    "forms": normalizers(*[replace("ص", "ﷺ"), {"type": "NFKC"}] * 20),
    "words that are split": pre_tokenizers(*[SPLIT, METASPACE] * 40),
    "bytes that are split": pre_tokenizers(*[BYTES] * 40),
    "many": normalizers(*[{"type": "Strip", "strip_left": True, "strip_right": True}] * 2000),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_tokenizer_that_makes_much_of_little_is_refused(fault, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    token = {"id": 600, "content": "a<", "normalized": True, "special": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": False}
    own = json.loads((directory / "tokenizer.json").read_text())["added_tokens"]
    edit_json(directory / "tokenizer.json", added_tokens=[*own, token], **HOSTILE[fault])
    done = run_python(LOAD, 60, str(directory))
    assert done.stdout.startswith("refused"), (done.returncode, done.stderr[-500:])
    assert "characters of one" in done.stdout or "2001 normalisers" in done.stdout


# From the tokenizers of Llama, ALBERT and XLNet, XLM-RoBERTa, CLIP, Gemma, DeepSeek, AraBERT.
REAL = {
    "Llama": normalizers({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),
    "XLNet": normalizers(
        replace("``", '"'),
        replace("''", '"'),
        {"type": "NFKD"},
        {"type": "StripAccents"},
        {"type": "Lowercase"},
        replace(" {2,}", " ", "Regex"),
    )
    | pre_tokenizers({"type": "WhitespaceSplit"}, METASPACE),
    "CLIP": normalizers({"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"})
    | pre_tokenizers(SPLIT, BYTES),
    "Gemma": {"normalizer": replace(" ", "▁")},
    "byte-level with splits": pre_tokenizers(*[SPLIT] * 20, BYTES),
    "many characters": normalizers(*[replace(chr(0x621 + n), "ا") for n in range(200)]),
    "many classes": normalizers(*[replace(f"[{chr(0x621 + n)}أ]", "ا", "Regex") for n in range(200)]),
    "ligatures": normalizers(*[replace(chr(0xFDF0 + n), "صلى الله عليه وسلم") for n in range(12)]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_are_within_the_bound(name, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(directory / "tokenizer.json", **REAL[name])
    assert TextTokenizer(read_checkpoint(directory))(["a"], "", "error")


def test_the_longest_string_of_a_character_map_counts(tmp_path):
    from akidb_mlx.checkpoint.tokenization.growth import check_growth

    path = tmp_path / "tokenizer.json"
    folded = [replace("``", '"'), {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]
    albert = normalizers(*folded, precompiled("a", "صلى الله عليه وسلم", "b"), replace(" {2,}", " ", "Regex"))
    check_growth(path, albert | {"pre_tokenizer": METASPACE})
    with pytest.raises(ModelLoadError, match="characters of one"):
        check_growth(path, normalizers(precompiled("a", "x" * 80), precompiled("x" * 80)))
    with pytest.raises(ModelLoadError, match="not base64"):
        check_growth(path, {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}})


MALFORMED = {
    "no object": ("[1]", "is not a tokenizer: its content: Input should be an? "),
    "no JSON": ("{", "its content: Invalid JSON"),
    "deep": ('{"normalizer":' * 100_000, "Invalid JSON: recursion limit exceeded"),
    "not UTF-8": (b"\xff\xfe{}", "Invalid JSON"),
    "an unknown key": ({"beam": 1}, "is not a tokenizer: beam: Extra inputs are not permitted"),
    "an unknown normalizer": ({"normalizer": {"type": "Sideways"}}, "'Sideways' in normalizers is not supported"),
    "a normalizer without type": ({"normalizer": {"prepend": "a"}}, "must be an object with a type"),
    "a normalizer that is a list": ({"normalizer": []}, "must be an object with a type"),
    "a sequence of nothing": ({"normalizer": {"type": "Sequence"}}, "must list its normalizers"),
    "an unknown post-processor": ({"post_processor": {"type": "Sideways"}}, "is not a tokenizer"),
    "an empty vocabulary": ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "has an empty vocabulary"),
    "an empty word list": (
        {
            "model": {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]", "max_input_chars_per_word": 9}
            | {"continuing_subword_prefix": "##"}
        },
        "has an empty vocabulary",
    ),
    "an empty Unigram": (
        {"model": {"type": "Unigram", "vocab": [], "unk_id": 0}},
        "is not a tokenizer|empty vocabulary",
    ),
    "no unknown token": (
        {"model": {"type": "WordLevel", "vocab": {"[CLS]": 2, "[SEP]": 3}, "unk_token": "<unk>"}},
        "'<unk>', for unknown words, is not in the vocabulary",
    ),
    "chance": (
        {"model": {"type": "BPE", "vocab": {"a": 0, "[CLS]": 2, "[SEP]": 3}, "merges": [], "dropout": 0.5}},
        "dropout 0.5",
    ),
    "added tokens that are none": ({"added_tokens": [3]}, "added_tokens.0: Input should be"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_tokenizer_is_a_typed_error(fault, tmp_path):
    content, message = MALFORMED[fault]
    directory = copy_model("tiny-bert", tmp_path)
    path = directory / "tokenizer.json"
    if isinstance(content, dict):
        edit_json(path, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelLoadError, match=message) as caught:
        TextTokenizer(read_checkpoint(directory))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["beam", "fast_tokenizer_files", "auto_map", "init_inputs", "normalise_digits"])
def test_a_key_whose_meaning_is_not_known_is_refused_by_name(key, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(directory / "tokenizer_config.json", **{key: ["something"]})
    with pytest.raises(ModelLoadError, match=f"'{key}' is not supported"):
        TextTokenizer(read_checkpoint(directory))
    edit_json(directory / "tokenizer_config.json", **{key: []})
    assert TextTokenizer(read_checkpoint(directory))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer_config.json", {"truncation_side": "middle"}, "truncation_side must be 'left' or 'right'"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case must be true or false, found 'yes'"),
        ("tokenizer_config.json", {"tokenizer_class": "JinaTokenizer"}, "'JinaTokenizer' is not supported"),
        ("tokenizer_config.json", {"tokenizer_class": ["x"]}, "is not supported"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "RobertaTokenizer"},
            "WordPiece vocabulary, and its .* is for BPE",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "must map ids to tokens"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": 1}}}, "must hold tokens"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "a", "x": 1}}}, "unknown property 'x'"),
        ("tokenizer_config.json", {"mask_token": 3}, "must hold tokens, found '3'"),
        ("tokenizer_config.json", {"additional_special_tokens": [3]}, "must hold tokens, found '3'"),
        ("special_tokens_map.json", {"beam": 1}, "'beam' is not the name of special tokens"),
        ("added_tokens.json", {"a": "b"}, "must map tokens to their ids"),
    ],
)
def test_a_wrong_value_is_refused_by_name(file, changes, message, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(directory / file, **changes)
    with pytest.raises(ModelLoadError, match=message):
        TextTokenizer(read_checkpoint(directory))


def test_a_name_that_no_file_can_have_is_a_typed_error(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    name = "x" * 300 + ".safetensors"
    edit_json(directory / "model.safetensors.index.json", weight_map={"a": name})
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="which is not a weight file beside it"):
        read_checkpoint(directory)
