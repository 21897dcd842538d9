"""Token ids are those of transformers' AutoTokenizer, whatever tokenizer_config.json and tokenizer.json say."""

import json

import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.errors import InvalidInputError
from tests.support import edit_json
from tests.tiny_tokenizers import CLASSES, FROZEN, FROZEN_SEEDS, TEXTS, reference_ids, write_tokenizer


def own_ids(directory, texts=TEXTS):
    """The ids of each text; those of one that has no token are []."""
    read = TextTokenizer(read_checkpoint(directory))
    ids = []
    for text in texts:
        try:
            (found,) = read([text], "", "truncate")
            ids.append(found.windows[0].tolist())
        except InvalidInputError as error:
            assert "yields no token" in str(error)
            ids.append([])
    return ids


def assert_same(found, expected):
    for text, own, reference in zip(TEXTS, found, expected, strict=True):
        assert own == reference, repr(text)


@pytest.mark.parametrize("seed", FROZEN_SEEDS)
@pytest.mark.parametrize("name", CLASSES)
def test_ids_are_those_that_transformers_gave(name, seed, tmp_path):
    expected = json.loads(FROZEN.read_text())[f"{name} {seed}"]
    assert_same(own_ids(write_tokenizer(name, seed, tmp_path)), expected)


@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize("name", CLASSES)
def test_ids_are_those_that_transformers_gives(name, seed, tmp_path):
    pytest.importorskip("transformers")
    directory = write_tokenizer(name, seed, tmp_path)
    assert_same(own_ids(directory), reference_ids(directory))


def test_a_flag_that_is_null_is_false(tmp_path):
    """As in transformers, where a null is no missing key."""
    directory = write_tokenizer("XLMRobertaTokenizerFast", FROZEN_SEEDS[0], tmp_path)
    ids = {}
    for value in (None, False, True):
        edit_json(directory / "tokenizer_config.json", add_prefix_space=value)
        ids[value] = own_ids(directory)
    assert ids[None] == ids[False]
    assert ids[None] != ids[True]
