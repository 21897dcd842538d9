import json
from dataclasses import replace

import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenization.frame import appends_end_token
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.deadline import NEVER
from akidb_mlx.errors import InferenceError, InvalidInputError, ModelLoadError
from tests.support import GOLDENS, TEXTS, copy_model, edit_json

LONG = "The harbour master kept a ledger. " * 200


class ListTokenizer(TextTokenizer):
    """Its token ids are lists, which compare as a whole."""

    def __call__(self, *args):
        return [
            replace(text, windows=tuple(window.tolist() for window in text.windows)) for text in super().__call__(*args)
        ]


def tokenizer(directory) -> TextTokenizer:
    return ListTokenizer(read_checkpoint(directory))


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-gemma3"])
def test_ids_are_the_references(name):
    expected = json.loads((GOLDENS / f"{name}.ids.json").read_text())
    read = tokenizer(GOLDENS / name)
    for found, ids in zip(read(TEXTS, "", "truncate"), expected, strict=True):
        assert found.truncated == (len(ids) > read.max_tokens)
        assert found.token_count == min(len(ids), read.max_tokens)
        assert len(found.windows) == 1
        assert found.windows[0] == (ids if not found.truncated else ids[: read.max_tokens - 1] + ids[-1:])


def test_truncation_equals_the_tokenizers_own():
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(GOLDENS / "tiny-bert/tokenizer.json"))
    own.enable_truncation(256)
    assert tokenizer(GOLDENS / "tiny-bert")([LONG], "", "truncate")[0].windows[0] == own.encode(LONG).ids


def test_the_prompt_is_tokenised_with_the_text():
    read = tokenizer(GOLDENS / "tiny-qwen3")
    assert read(["b c"], "a ", "error") == read(["a b c"], "", "error")


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-gemma3"])
def test_windows_cover_a_long_text_and_overlap(name):
    """Every token of the text is in a window, in order; neighbours share an eighth of a window; each has the prompt."""
    read = tokenizer(GOLDENS / name)
    before, after = read._before.tolist(), read._after.tolist()
    whole, prompt = (read.encode([text])[0].tolist() for text in (LONG, "query: "))
    (chunked,) = read([LONG], "query: ", "chunk")
    width = read.max_tokens - len(before) - len(after) - len(prompt)
    rebuilt: list[int] = []
    for number, window in enumerate(chunked.windows):
        head = [*before, *prompt]
        assert window[: len(head)] == head
        assert window[len(window) - len(after) :] == after
        assert len(window) <= read.max_tokens
        body = window[len(head) : len(window) - len(after)]
        overlap = width // 8 if number else 0
        assert body[:overlap] == rebuilt[len(rebuilt) - overlap :]
        rebuilt += body[overlap:]
    assert rebuilt == whole
    assert len(chunked.windows) > 2
    assert chunked.token_count == len(before) + len(prompt) + len(whole) + len(after)
    assert not chunked.truncated


def test_a_text_one_token_too_long_becomes_two_windows():
    read = tokenizer(GOLDENS / "tiny-bert")
    room = read.max_tokens - 2
    word = "a "  # one token in this vocabulary
    assert len(read([word * room], "", "chunk")[0].windows) == 1
    assert [len(w) for w in read([word * (room + 1)], "", "chunk")[0].windows] == [256, 2 + room // 8 + 1]


def test_a_text_that_is_too_long_can_be_an_error():
    with pytest.raises(InvalidInputError, match=r"text 1 has \d+ tokens and the model takes 256") as caught:
        tokenizer(GOLDENS / "tiny-bert")(["short", LONG], "", "error")
    assert caught.value.index == 1


def test_a_prompt_that_fills_the_model_cannot_be_chunked_beside():
    with pytest.raises(InvalidInputError, match=r"its prompt of \d+ tokens fills") as caught:
        tokenizer(GOLDENS / "tiny-bert")(["short", LONG], LONG, "chunk")
    assert caught.value.index == 0


def test_a_lost_final_token_is_appended(tmp_path):
    directory = copy_model("tiny-qwen3-4bit", tmp_path)
    edit_json(directory / "tokenizer.json", post_processor=None)
    whole = tokenizer(GOLDENS / "tiny-qwen3-4bit")
    for policy in ("truncate", "chunk"):
        assert tokenizer(directory)([*TEXTS, LONG], "", policy) == whole([*TEXTS, LONG], "", policy)


def test_a_final_token_that_cannot_be_appended_is_an_error(tmp_path):
    qwen = copy_model("tiny-qwen3-4bit", tmp_path)
    (qwen / "tokenizer.json").write_bytes((GOLDENS / "tiny-bert/tokenizer.json").read_bytes())
    edit_json(qwen / "tokenizer.json", post_processor=None)
    edit_json(qwen / "tokenizer_config.json", eos_token=None, pad_token=None)
    with pytest.raises(ModelLoadError, match=r"has no <\|endoftext\|>"):
        tokenizer(qwen)


def _ends_with(directory, token):
    """Let the post-processor of a directory's tokenizer.json end every text with a token, or with none."""
    path = directory / "tokenizer.json"
    processor = json.loads(path.read_text())["post_processor"]
    ids = {entry["content"]: entry["id"] for entry in json.loads(path.read_text())["added_tokens"]}
    processor["single"] = [{"Sequence": {"id": "A", "type_id": 0}}]
    if token is not None:
        processor["single"] += [{"SpecialToken": {"id": token, "type_id": 0}}]
        processor["special_tokens"][token] = {"id": token, "ids": [ids[token]], "tokens": [token]}
    edit_json(path, post_processor=processor)


@pytest.mark.parametrize(
    ("name", "token", "pooling", "end"),
    [
        ("tiny-qwen3-4bit", "<|im_end|>", "lasttoken", [2]),  # ends otherwise
        ("tiny-qwen3-4bit", "<|endoftext|>", "lasttoken", [0]),
        ("tiny-qwen3", None, "lasttoken", []),  # complete, and ends with nothing
        ("tiny-qwen3", None, "mean", []),
    ],
)
def test_nothing_is_appended_to_what_the_checkpoint_says(name, token, pooling, end, tmp_path):
    directory = copy_model(name, tmp_path)
    _ends_with(directory, token)
    if name == "tiny-qwen3":
        (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    assert tokenizer(directory)._after.tolist() == end


@pytest.mark.parametrize(("token", "expected"), [("<|im_end|>", False), ("<|endoftext|>", True), (None, False)])
def test_whether_the_tokenizer_appends_the_end_token(token, expected, tmp_path):
    directory = copy_model("tiny-qwen3-4bit", tmp_path)
    _ends_with(directory, token)
    assert appends_end_token(directory, "<|endoftext|>") is expected
    edit_json(directory / "tokenizer.json", post_processor=None)
    assert not appends_end_token(directory, "<|endoftext|>")


def test_padding_and_truncation_of_the_file_are_ignored(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(
        directory / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 300},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    plain = tokenizer(GOLDENS / "tiny-bert")
    assert tokenizer(directory)(TEXTS, "", "truncate") == plain(TEXTS, "", "truncate")


def test_lower_case(tmp_path):
    directory = copy_model("tiny-qwen3", tmp_path)
    edit_json(directory / "sentence_bert_config.json", do_lower_case=True)
    plain = tokenizer(GOLDENS / "tiny-qwen3")
    assert tokenizer(directory)(["MiXeD Ünïcode"], "", "error") == plain(["mixed ünïcode"], "", "error")


def test_lower_case_leaves_special_tokens_alone(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(directory / "sentence_bert_config.json", do_lower_case=True)
    plain = tokenizer(GOLDENS / "tiny-bert")
    assert tokenizer(directory)(["A [MASK] B"], "", "error") == plain(["a [MASK] b"], "", "error")


def test_a_text_without_any_token_is_an_error(tmp_path):
    directory = copy_model("tiny-gemma3", tmp_path)
    edit_json(directory / "tokenizer.json", post_processor=None)
    with pytest.raises(InvalidInputError, match="text 1 yields no token") as caught:
        tokenizer(directory)(["a", ""], "", "truncate")
    assert caught.value.index == 1


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-gemma3"])
def test_the_tokens_of_a_prompt_that_no_text_changes(name):
    read = tokenizer(GOLDENS / name)
    prompt = "Instruct: find passages that answer the query\nQuery:"
    prefix = read.prefix(prompt).tolist()
    assert len(prefix) > 8
    for text in read(TEXTS, prompt, "truncate"):
        assert text.windows[0][: len(prefix)] == prefix


def test_a_long_text_does_not_hold_up_a_short_one():
    """It has a tokenizer of its own, so the first one is free; both read alike."""
    read = tokenizer(GOLDENS / "tiny-bert")
    long = LONG * 100
    with read._short._lock:
        (whole,) = read([long], "", "chunk")
    assert whole.token_count == len(read._short.encode([long], NEVER)[0]) + 2


def test_a_panic_of_the_tokenizer_is_an_error_of_the_call():
    class Panic(BaseException):
        pass

    class Broken:
        def encode_batch_fast(self, *_, **__):
            raise Panic("as Rust would")

    read = tokenizer(GOLDENS / "tiny-bert")
    working = read._short._tokenizer
    read._short._tokenizer = Broken()
    with pytest.raises(InferenceError, match="tokenizer failed: Panic: as Rust would"):
        read(["a"], "", "error")
    read._short._tokenizer = working
    assert read(["a"], "", "error")
