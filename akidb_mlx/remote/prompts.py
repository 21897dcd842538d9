"""The prompts of a model that is behind an API, and the fields of a request that the options of a call become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import CallOptions
from akidb_mlx.texts import check_string

# OpenAI's models, which were trained without prompts.
_WITHOUT_PROMPTS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")


def parse_prompts(prompts: Any, model: str) -> dict[str, str] | None:
    """Return the prompts that a caller gave, or else those that are known of a model; None where none are.

    Raises:
        InvalidInputError: they are no mapping of names to texts.
    """
    if prompts is None:
        return {} if model in _WITHOUT_PROMPTS else None
    if not isinstance(prompts, Mapping):
        raise InvalidInputError(f"prompts must be a mapping of names to texts, found {type(prompts).__name__}")
    for name, prompt in prompts.items():
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise InvalidInputError("prompts must map names to texts, both strings")
        check_string(f"prompt {name!r}", prompt)
    return dict(prompts)


def translate(
    call: CallOptions, prompts: Mapping[str, str] | None, model: str, native: int, is_akidb: bool
) -> tuple[str, dict[str, Any]]:
    """Return the text to put before each text here, and the fields that the API is sent.

    Args:
        call: the options of the call.
        prompts: those that are known here; None where none are.
        model: the model's name.
        native: the model's own dimension.
        is_akidb: whether the API is akidb-mlx's server, which takes all options.

    Raises:
        InvalidInputError: the prompt that the call asks for is not known.
    """
    fields: dict[str, Any] = {}
    if call.dimensions != native:
        fields["dimensions"] = call.dimensions
    if is_akidb and call.on_overflow != "truncate":
        fields["on_overflow"] = call.on_overflow
    if is_akidb and call.prompt is not None:
        fields["prompt"] = call.prompt
        return "", fields
    if call.input_type is None or prompts is not None:
        return choose_prompt(prompts or {}, call.input_type, call.prompt), fields
    if is_akidb:
        fields["input_type"] = call.input_type
        return "", fields
    raise InvalidInputError(
        f"input_type={call.input_type!r}: the prompts of {model} are not known here; create the embedder with "
        "prompts={'query': …, 'document': …}, or with prompts={} where the model has none"
    )
