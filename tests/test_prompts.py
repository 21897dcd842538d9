import json
import logging

import pytest

from akidb_mlx.checkpoint.prompts import choose_prompt, read_default_prompt_name
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from tests.support import GOLDENS, copy_model, edit_json

PROMPTS = {"query": "Q: ", "document": "D: ", "STS": "S: "}


@pytest.mark.parametrize(
    ("prompts", "input_type", "prompt", "expected"),
    [
        (PROMPTS, None, None, ""),
        (PROMPTS, "query", None, "Q: "),
        (PROMPTS, "document", None, "D: "),
        (PROMPTS, "STS", None, "S: "),
        (PROMPTS, None, "literal ", "literal "),
        (PROMPTS, None, "", ""),
        ({}, "query", None, ""),
        ({}, "document", None, ""),
        ({"query": "Q: "}, "document", None, ""),
        ({"passage": "P: "}, "document", None, "P: "),
        ({"corpus": "C: "}, "document", None, "C: "),
        ({"passage": "P: ", "document": "D: "}, "document", None, "D: "),
    ],
)
def test_the_prompt_that_is_chosen(prompts, input_type, prompt, expected):
    assert choose_prompt(prompts, input_type, prompt) == expected


@pytest.mark.parametrize("name", ["nope", "", "sts", "passage"])
def test_a_name_that_the_model_does_not_have_is_refused(name):
    with pytest.raises(InvalidInputError, match=f"'{name}' is none of this model's prompts: query, document, STS"):
        choose_prompt(PROMPTS, name, None)


def test_a_default_prompt_is_reported_and_warned_of_and_not_applied(tmp_path, caplog):
    from akidb_mlx import EmbeddingService

    directory = copy_model("tiny-qwen3", tmp_path)
    edit_json(directory / "config_sentence_transformers.json", default_prompt_name="query")
    with (
        caplog.at_level(logging.WARNING, "akidb_mlx"),
        EmbeddingService(directory, device="cpu") as one,
        EmbeddingService(GOLDENS / "tiny-qwen3", device="cpu") as plain,
    ):
        assert one.get_model_info()["default_prompt"] == "query"
        assert plain.get_model_info()["default_prompt"] is None
        assert one.embed(["a text"]) == one.embed(["a text"]) == plain.embed(["a text"])
        assert one.embed(["a text"], input_type="query") != plain.embed(["a text"])
    (record,) = caplog.records
    assert "ask for the prompt 'query' by default" in record.getMessage()


@pytest.mark.parametrize(("name", "expected"), [(None, None), ("query", "query"), ("passage", ModelLoadError)])
def test_the_name_of_the_default_prompt(name, expected, tmp_path):
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": name}))
    if expected is ModelLoadError:
        with pytest.raises(ModelLoadError, match="default_prompt_name 'passage' is none of its prompts: query"):
            read_default_prompt_name(tmp_path, PROMPTS)
    else:
        assert read_default_prompt_name(tmp_path, PROMPTS) == expected
