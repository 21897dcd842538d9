"""Checks of the texts that a caller passes."""

from __future__ import annotations

from collections.abc import Iterable

from akidb_mlx.errors import InvalidInputError


def list_texts(texts: Iterable[str]) -> list[str]:
    """Return the texts of a call as a list, once each is known to be text.

    Raises:
        InvalidInputError: they are no collection, or one of them is not a string or not text; `index` holds which.
    """
    if isinstance(texts, (str, bytes, dict)) or not isinstance(texts, Iterable):
        raise InvalidInputError(f"texts must be a list of strings, found {type(texts).__name__}")
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"text {index} must be a string, found {type(text).__name__}", index)
        if not text.isascii():
            check_string(f"text {index}", text, index)
    return texts


def check_string(name: str, text: str, index: int | None = None) -> None:
    """Refuse a string that cannot be UTF-8: the tokenizer would fail on it, and the whole call with it.

    Raises:
        InvalidInputError: the text holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds a lone surrogate, U+{ord(text[error.start]):04X} at character {error.start}, which is not "
            "text; decode its source with the right encoding or errors='replace'",
            index,
        ) from error
