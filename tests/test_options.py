"""The checks of a call's options."""

import pytest

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import DimensionRange, parse_options

SIZES = DimensionRange(default=384, native=384, cuttable=True, model="a model")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"input_type": "query", "prompt": "literal"}, "give input_type or prompt, not both"),
        ({"prompt": 3}, "prompt must be a string, found int"),
        ({"prompt": b"query: "}, "prompt must be a string, found bytes"),
        ({"input_type": ["query"]}, r"input_type must be a string, found list"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_a_prompt_that_is_refused(options, problem):
    with pytest.raises(InvalidInputError, match=problem):
        parse_options(options, SIZES)


@pytest.mark.parametrize(
    ("options", "input_type", "prompt"),
    [
        ({}, None, None),
        ({"input_type": None, "prompt": None}, None, None),
        ({"input_type": "STS"}, "STS", None),
        ({"prompt": ""}, None, ""),
    ],
)
def test_a_prompt_that_is_taken(options, input_type, prompt):
    call = parse_options(options, SIZES)
    assert (call.input_type, call.prompt) == (input_type, prompt)
