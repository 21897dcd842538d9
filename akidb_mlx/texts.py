"""The texts that a caller passes: their check, and the pieces that are tokenised at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from akidb_mlx.errors import InvalidInputError

# The amount that is tokenised at once: enough to sort by length with profit, and little enough for the first batches to
# run soon.
_SLICE_TEXTS, _SLICE_CHARACTERS = 1024, 1 << 18
# Used to estimate the tokens of a text for the queue's bound.
_CHARACTERS_PER_TOKEN = 4
_Text = TypeVar("_Text", bound=Sized)


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


def expected_tokens(texts: list[str], prompt: str) -> int:
    """Estimate how many tokens texts have, before they are tokenised."""
    return sum((len(prompt) + len(text)) // _CHARACTERS_PER_TOKEN + 2 for text in texts)


def slices(texts: list[_Text], size: Callable[[_Text], int] = len) -> Iterator[list[_Text]]:
    """Yield texts, or pairs of texts, in pieces that are tokenised at once; `size` counts the characters of one."""
    start = characters = 0
    for end, text in enumerate(texts):
        characters += size(text)
        if end - start >= _SLICE_TEXTS or (characters > _SLICE_CHARACTERS and end > start):
            yield texts[start:end]
            start, characters = end, size(text)
    if start < len(texts):
        yield texts[start:]
