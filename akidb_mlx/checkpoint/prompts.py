"""The choice of the prompt that precedes each text of a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from akidb_mlx.checkpoint.files import is_file, read_json
from akidb_mlx.errors import InvalidInputError, ModelLoadError

# The names that sentence-transformers tries, in this order, for the two roles of a text in retrieval.
_ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}


def choose_prompts(stored: Mapping[str, str], card: Mapping[str, str]) -> dict[str, str]:
    """Return a model's prompts by name: those in its files, or those on its card where they hold none.

    Files that sentence-transformers saved hold empty prompts where the model was given none.
    """
    return dict(stored) if any(stored.values()) or not card else {**stored, **card}


def choose_prompt(prompts: Mapping[str, str], input_type: str | None, prompt: str | None) -> str:
    """Return the string to put before each text.

    Args:
        prompts: the model's prompts by name.
        input_type: None, "query", "document" or a name in `prompts`. Every model has the two roles; one without a
            prompt for a role takes its texts as they are.
        prompt: used literally, instead of a named one.

    Raises:
        InvalidInputError: the model has no prompt of that name.
    """
    if prompt is not None:
        return prompt
    if input_type is None:
        return ""
    if (name := find_prompt_name(prompts, input_type)) is not None:
        return prompts[name]
    if input_type in _ROLES:
        return ""
    raise InvalidInputError(
        f"input_type {input_type!r} is none of this model's prompts: {', '.join({**_ROLES, **prompts})}"
    )


def find_prompt_name(prompts: Collection[str], input_type: str) -> str | None:
    """Return which of a model's prompts is used for a role, or for a prompt's own name; None if it has none."""
    return next((name for name in _ROLES.get(input_type, (input_type,)) if name in prompts), None)


def choose_route(routes: Mapping[str | None, str], input_type: str | None) -> str:
    """Return the route that texts take through a model: that of their role, or the default one.

    Args:
        routes: those of the model, by "query", "document" or None.
        input_type: None, "query", "document" or the name of a prompt, which is no role.

    Raises:
        InvalidInputError: the model has no route for such texts.
    """
    role = input_type if input_type in _ROLES else None
    if role not in routes:
        given = "no role" if role is None else f"the role {role!r}"
        known = ", ".join(repr(one) for one in routes if one is not None) or "none"
        raise InvalidInputError(f"this model has no route for texts with {given}: give input_type one of {known}")
    return routes[role]


def read_default_prompt_name(directory: Path, prompts: Mapping[str, str]) -> str | None:
    """Return the name of the prompt that sentence-transformers puts before texts of a call that names none.

    Here a call without `input_type` takes its texts as they are, so it is only reported.

    Args:
        directory: the model directory.
        prompts: the model's prompts by name.

    Raises:
        ModelLoadError: the model has no prompt of that name.
    """
    path = directory / "config_sentence_transformers.json"
    name = read_json(path).get("default_prompt_name") if is_file(path) else None
    if name is not None and (not isinstance(name, str) or name not in prompts):
        raise ModelLoadError(
            f"{path}: default_prompt_name {str(name)[:80]!r} is none of its prompts: {', '.join(prompts)}"
        )
    return name
