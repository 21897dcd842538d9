"""The division of a call's texts into requests that an API takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import is_number

# OpenAI's limits: texts and tokens of a request, and tokens of a text.
_MAX_TEXTS, _MAX_REQUEST_TOKENS, _MAX_TEXT_TOKENS = 2048, 300_000, 8192
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Limits:
    """The limits of an API, which may be lower than OpenAI's.

    Attributes:
        max_texts: most texts of a request.
        max_request_tokens: most tokens of a request, by `estimate_tokens`.
        max_text_tokens: most tokens of a text, by `estimate_tokens`.
    """

    max_texts: int = _MAX_TEXTS
    max_request_tokens: int = _MAX_REQUEST_TOKENS
    max_text_tokens: int = _MAX_TEXT_TOKENS

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            InvalidInputError: one is no positive integer.
        """
        for name, value in vars(self).items():
            if not is_number(value, int) or value < 1:
                raise InvalidInputError(f"{name} must be an integer of 1 or more, found {value!r}")


@dataclass(frozen=True)
class Batch:
    """Texts of one request.

    Attributes:
        first: the index of the first text in the call.
        texts: the texts, with their prompt.
    """

    first: int
    texts: list[str]

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of it."""
        middle = len(self.texts) // 2
        return Batch(self.first, self.texts[:middle]), Batch(self.first + middle, self.texts[middle:])


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has, by its bytes: the API's tokenizer is not known here."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1


def check_lengths(sizes: Sequence[int], limits: Limits, model: str) -> None:
    """Refuse a text that is longer than an API takes; `sizes` are the estimated tokens of each.

    Raises:
        InvalidInputError: one is; `index` holds which.
    """
    for index, size in enumerate(sizes):
        if size > limits.max_text_tokens:
            raise InvalidInputError(
                f"text {index} has about {size} tokens, by its bytes, and {model} takes {limits.max_text_tokens}: "
                "shorten it, or change limits=Limits(max_text_tokens=…)",
                index,
            )


def make_batches(texts: Sequence[str], sizes: Sequence[int], limits: Limits) -> Iterator[Batch]:
    """Yield the texts in order, as few requests; a single text may exceed `max_request_tokens`.

    Args:
        texts: the texts.
        sizes: the estimated tokens of each.
        limits: of the API.
    """
    start = tokens = 0
    for end, size in enumerate(sizes):
        if end > start and (end - start >= limits.max_texts or tokens + size > limits.max_request_tokens):
            yield Batch(start, list(texts[start:end]))
            start, tokens = end, 0
        tokens += size
    if start < len(texts):
        yield Batch(start, list(texts[start:]))


def share_tokens(total: int, texts: Sequence[str]) -> list[int]:
    """Divide the tokens of a request among its texts by their estimated tokens; the shares add up to `total`."""
    sizes = [estimate_tokens(text) for text in texts]
    whole, seen, given = sum(sizes), 0, 0
    shares: list[int] = []
    for size in sizes:
        seen += size
        shares.append(total * seen // whole - given)
        given += shares[-1]
    return shares
