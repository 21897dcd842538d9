"""The prompts of a model that is behind an API, as far as they are known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from akidb_mlx.errors import InvalidInputError
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
