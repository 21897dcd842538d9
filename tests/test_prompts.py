import pytest

from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.errors import InvalidInputError

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
