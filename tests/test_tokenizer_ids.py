"""Token ids, padding and positions beyond a table are refused: MLX would read foreign memory, or crash (fault 26)."""

import json

import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenization.ids import table_rows
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from tests.support import GOLDENS, copy_model, edit_json, run_python

# Loads each model in a process of its own, which may crash, and embeds what spells the tokens that were moved.
EMBED = """
import sys
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError
try:
    with EmbeddingService(sys.argv[1], device="cpu") as service:
        service.embed([sys.argv[2]])
except AkidbMlxError as error:
    print(type(error).__name__, getattr(error, "index", None), error)
else:
    print("embedded")
"""


def edit_tokenizer(directory, change):
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shift_vocabulary(by):
    def change(content):
        content["model"]["vocab"] = {token: number + by for token, number in content["model"]["vocab"].items()}

    return change


def move_one(token, number):
    def change(content):
        content["model"]["vocab"][token] = number

    return change


def shift_processor(by):
    def change(content):
        for token in content["post_processor"]["special_tokens"].values():
            token["ids"] = [number + by for number in token["ids"]]

    return change


def set_padding(number):
    def change(content):
        content["padding"] = {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": number,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }

    return change


BEYOND = {
    "the vocabulary by its size": shift_vocabulary(615),
    "the vocabulary by much": shift_vocabulary(1 << 31),
    "a word": move_one("harbour", 615),
    "a word by much": move_one("harbour", (1 << 32) - 1),
    "the post-processor by one table": shift_processor(615),
    "the post-processor by much": shift_processor(1 << 31),
    "padding": set_padding(615),
}


@pytest.mark.parametrize("fault", BEYOND)
def test_ids_beyond_the_table_are_refused_at_load(fault, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_tokenizer(directory, BEYOND[fault])
    done = run_python(EMBED, 60, str(directory), "the harbour")
    assert done.stdout.startswith("ModelLoadError"), (done.returncode, done.stdout, done.stderr)
    assert "the model has tokens 0 to 614" in done.stdout


@pytest.mark.parametrize("number", [-1, -1000, 615, 128, 1 << 40, True, "0", 0.5])
@pytest.mark.parametrize("name", ["tiny-roberta", "tiny-bert"])
def test_a_padding_id_that_is_no_token_is_refused_at_load(name, number, tmp_path):
    directory = copy_model(name, tmp_path, pad_token_id=number)
    if name == "tiny-bert" and number == 128:
        number, directory = None, copy_model(name, tmp_path / "other", pad_token_id=None)
    done = run_python(EMBED, 60, str(directory), "the harbour")
    expected = "embedded" if number is None else "ModelLoadError"
    assert done.stdout.startswith(expected), (done.returncode, done.stdout, done.stderr)


LOAD_MODEL = """
import sys
from pathlib import Path
from akidb_mlx.errors import AkidbMlxError
from tests.test_loading import new_model
try:
    new_model(Path(sys.argv[1]))
except AkidbMlxError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("number", [-1, -1000, 128, 615, 1 << 20])
def test_an_encoder_refuses_positions_that_follow_such_a_padding_id(number, tmp_path):
    """It is tried while the tokenizer is still read."""
    done = run_python(LOAD_MODEL, 60, str(copy_model("tiny-roberta", tmp_path, pad_token_id=number)))
    assert done.stdout.startswith("ModelLoadError config.json: "), (done.returncode, done.stdout, done.stderr)
    assert "pad_token_id" in done.stdout


def test_a_table_with_fewer_rows_than_the_vocabulary_is_what_counts(tmp_path):
    """The rows of the stored table are compared, and not config.json's number."""
    checkpoint = read_checkpoint(copy_model("tiny-bert", tmp_path, vocab_size=1 << 20))
    assert table_rows(checkpoint) == 615


ADDED = {"id": 615, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def with_added_token(tmp_path):
    """A model with a full vocabulary and one more token, as EmbeddingGemma has."""

    def change(content):
        vocabulary = content["model"]["vocab"]
        free = sorted(set(range(615)) - set(vocabulary.values()))
        vocabulary |= {f"[unused{number}]": number for number in free}
        content["added_tokens"].append({"content": "<image_soft_token>"} | ADDED)

    directory = copy_model("tiny-bert", tmp_path)
    edit_tokenizer(directory, change)
    return directory


def test_an_added_token_beyond_the_table_is_refused_in_the_text_that_spells_it(tmp_path):
    directory = with_added_token(tmp_path)
    done = run_python(EMBED, 60, str(directory), "see <image_soft_token>")
    assert done.stdout.startswith("InvalidInputError 0 text 0 spells '<image_soft_token>'"), (done.stdout, done.stderr)
    done = run_python(EMBED, 60, str(directory), "see image soft token")
    assert done.stdout == "embedded\n", done.stderr


@pytest.mark.parametrize("policy", ["truncate", "error", "chunk"])
def test_the_text_is_named_that_spells_such_a_token(policy, tmp_path):
    read = TextTokenizer(read_checkpoint(with_added_token(tmp_path)))
    with pytest.raises(InvalidInputError, match="text 7 spells '<image_soft_token>'") as caught:
        read(["a", "b <image_soft_token> c"], "", policy, 6)
    assert caught.value.index == 7
    with pytest.raises(InvalidInputError, match="text 0 spells"):
        read(["a"], "<image_soft_token>", policy)


def test_such_a_token_where_the_text_is_cut_off_is_no_fault(tmp_path):
    read = TextTokenizer(read_checkpoint(with_added_token(tmp_path)))
    (text,) = read(["a " * 1000 + "<image_soft_token>"], "", "truncate")
    assert text.truncated


# Gives a model rows that are just within its tables, and then rows that are not, in a process that may crash.
RUN_ROWS = """
import sys
from pathlib import Path
import numpy as np
from akidb_mlx.engine.backend import TokenRows
from akidb_mlx.errors import InferenceError
from tests.test_loading import new_model

model = new_model(Path(sys.argv[1]))
rows, longest = model.facts.vocabulary_size, model.facts.max_tokens

def run(ids, prefix=()):
    ids = np.array([ids], np.int32)
    return model.start([TokenRows(ids, np.array([ids.shape[1]], np.int32), np.array(prefix, np.int32))]).result()

assert np.isfinite(run([0, rows - 1])).all()
assert np.isfinite(run([0] * longest)).all()
unknown = [([rows], ()), ([-1], ()), ([0], [rows]), ([0], [-1])]
for ids, prefix in [*unknown, ([0] * (longest + 1), ()), ([0] * longest, [0])]:
    try:
        run(ids, prefix)
    except InferenceError as error:
        print(error)
"""


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta", "tiny-qwen3-4bit", "tiny-gemma3"])
def test_a_backend_refuses_ids_and_positions_beyond_its_tables(name):
    done = run_python(RUN_ROWS, 60, str(GOLDENS / name))
    assert done.returncode == 0, done.stderr
    refused = [line.split()[3:5] for line in done.stdout.splitlines()]
    assert refused == [["the", "tokens"]] * 4 + [["sequences", "of"]] * 2


def test_a_vocabulary_may_have_gaps(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    edit_tokenizer(directory, move_one("[unused]", 614))
    assert TextTokenizer(read_checkpoint(directory))(["a"], "", "error")


def test_a_template_of_another_token_type_is_refused(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)

    def change(content):
        content["post_processor"]["single"][1]["Sequence"]["type_id"] = 1

    edit_tokenizer(directory, change)
    with pytest.raises(ModelLoadError, match="the type 1; only 0 is supported"):
        TextTokenizer(read_checkpoint(directory))


@pytest.mark.parametrize("places", [0, 2])
def test_a_template_must_put_a_text_in_one_place(places, tmp_path):
    directory = copy_model("tiny-bert", tmp_path)

    def change(content):
        single = content["post_processor"]["single"]
        content["post_processor"]["single"] = [single[0], *[single[1]] * places, single[2]]

    edit_tokenizer(directory, change)
    with pytest.raises(ModelLoadError, match=f"one place, found {places} places|is not a tokenizer"):
        TextTokenizer(read_checkpoint(directory))


def test_the_special_tokens_are_found_in_a_vocabulary_without_the_sample(tmp_path):
    """A letter that the vocabulary lacks has no token, so the special tokens around it would all seem to follow it."""
    directory = copy_model("tiny-gemma3", tmp_path)
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2}
    edit_tokenizer(directory, lambda content: content["model"].update(vocab=vocabulary, merges=[]))
    edit_json(directory / "tokenizer.json", pre_tokenizer=None)
    read = TextTokenizer(read_checkpoint(directory))
    assert (read._before.tolist(), read._after.tolist()) == ([2], [1])
