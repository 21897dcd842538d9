"""The arguments of a reranking call, and their check."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from typing_extensions import TypedDict

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import OVERFLOW_POLICIES, OverflowPolicy, is_number
from akidb_mlx.texts import check_string


class RerankOptions(TypedDict, total=False):
    """The keyword options that every reranking call takes.

    Attributes:
        prompt_name: the name of a prompt of the model; the one that its files name as the default if not given.
        prompt: a string, in place of a named prompt. It stands before each query, or, in a language model, is the
            instruction in its template. "" takes none.
        on_overflow: how a pair is treated that is longer than the model takes. "truncate" (default) cuts the longer
            text first, and says so in `truncated`; "error" refuses it; "chunk" scores the query with overlapping
            windows of the document, and takes the best score.
        timeout: seconds that the whole call may take, as in `EmbedOptions`. None (default) waits.
    """

    prompt_name: str | None
    prompt: str | None
    on_overflow: OverflowPolicy
    timeout: float | None


def check_options(options: RerankOptions, labels: int) -> OverflowPolicy:
    """Check the options of one call, and return how pairs are treated that are too long.

    Raises:
        InvalidInputError: a value is not usable; the message names the option.
        TypeError: there is no such option.
    """
    if unknown := set(options) - RerankOptions.__optional_keys__:
        known = ", ".join(RerankOptions.__annotations__)
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; known: {known}")
    on_overflow = options.get("on_overflow", "truncate")
    if on_overflow not in OVERFLOW_POLICIES:
        raise InvalidInputError(
            f"on_overflow must be one of {', '.join(OVERFLOW_POLICIES)}, found {reprlib.repr(on_overflow)}"
        )
    if on_overflow == "chunk" and labels > 1:
        raise InvalidInputError(
            f"on_overflow='chunk' takes the best window of a document, and with {labels} labels none is the best; use "
            "'truncate' or 'error'"
        )
    return on_overflow


def choose_prompt(options: RerankOptions, prompts: Mapping[str, str], default: str | None) -> str:
    """Return the prompt of a call; "" for none.

    Raises:
        InvalidInputError: the model has no prompt of that name, or it is no string.
    """
    name, prompt = options.get("prompt_name"), options.get("prompt")
    if prompt is not None:
        if name is not None:
            raise InvalidInputError("give prompt_name or prompt, not both: prompt is used in place of a named one")
        if not isinstance(prompt, str):
            raise InvalidInputError(f"prompt must be a string, found {type(prompt).__name__}")
        check_string("prompt", prompt)
        return prompt
    name = default if name is None else name
    if name is None:
        return ""
    if not isinstance(name, str) or name not in prompts:
        known = ", ".join(prompts) or "it has none"
        raise InvalidInputError(f"prompt_name {reprlib.repr(name)} is none of this model's prompts: {known}")
    return prompts[name]


def list_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of a call as a list, once each is known to be two texts.

    Raises:
        InvalidInputError: they are no collection, or one of them is no pair of strings or not text; `index` holds
            which.
    """
    if isinstance(pairs, (str, bytes, dict)) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"pairs must be a list of pairs of strings, found {type(pairs).__name__}")
    listed: list[tuple[str, str]] = []
    for index, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes, dict)) or not isinstance(pair, Iterable) or len(texts := tuple(pair)) != 2:
            raise InvalidInputError(
                f"pair {index} must be two strings, a query and a document, found {reprlib.repr(pair)}", index
            )
        for name, text in zip(("query", "document"), texts, strict=True):
            if not isinstance(text, str):
                raise InvalidInputError(
                    f"the {name} of pair {index} must be a string, found {type(text).__name__}", index
                )
            check_string(f"the {name} of pair {index}", text, index)
        query, document = texts
        listed.append((query, document))
    return listed


def parse_top_k(top_k: Any) -> int | None:
    """Return how many documents are wanted; None for all.

    Raises:
        InvalidInputError: it is no number of 1 or more.
    """
    if top_k is None:
        return None
    if not is_number(top_k, Integral) or top_k < 1:
        raise InvalidInputError(f"top_k must be an integer of 1 or more, or None, found {reprlib.repr(top_k)}")
    return int(top_k)


def parse_max_length(max_length: Any, most: int) -> int:
    """Return how many tokens a pair may have.

    Raises:
        InvalidInputError: it is no number from 1 to what the model takes.
    """
    if max_length is None:
        return most
    if not is_number(max_length, Integral) or not 1 <= max_length <= most:
        raise InvalidInputError(f"max_length must be an integer from 1 to {most}, found {reprlib.repr(max_length)}")
    return int(max_length)
