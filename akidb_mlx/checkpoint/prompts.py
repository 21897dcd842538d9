"""Which prompt goes before each text of a call."""

from __future__ import annotations

from collections.abc import Mapping

from akidb_mlx.errors import InvalidInputError

# The names that sentence-transformers tries, in this order, for the two roles of a text in retrieval.
_ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}


def choose_prompt(prompts: Mapping[str, str], input_type: str | None, prompt: str | None) -> str:
    """The text to put before each text.

    Args:
        prompts: the model's prompts by name.
        input_type: None, "query", "document" or a name in `prompts`. The two roles exist for every model; one that
            has no prompt for a role wants nothing before the text.
        prompt: used literally, instead of a named one.

    Raises:
        InvalidInputError: both are given, either is of the wrong type, or the model has no prompt of that name.
    """
    if prompt is not None:
        if input_type is not None:
            raise InvalidInputError("give input_type or prompt, not both: prompt is used literally in place of a name")
        if not isinstance(prompt, str):
            raise InvalidInputError(f"prompt must be a string, found {type(prompt).__name__}")
        return prompt
    if input_type is None:
        return ""
    if not isinstance(input_type, str):
        raise InvalidInputError(f"input_type must be a string, found {type(input_type).__name__}")
    for name in _ROLES.get(input_type, (input_type,)):
        if name in prompts:
            return prompts[name]
    if input_type in _ROLES:
        return ""
    raise InvalidInputError(
        f"input_type {input_type!r} is none of this model's prompts: {', '.join({**_ROLES, **prompts})}"
    )
