"""Texts to token ids, and what happens to a text that is longer than the model takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer, normalizers, processors

from akidb_mlx.embedding.checkpoint import Checkpoint
from akidb_mlx.errors import InvalidInputError, ModelLoadError

OverflowPolicy = Literal["truncate", "error", "chunk"]
OVERFLOW_POLICIES: tuple[OverflowPolicy, ...] = ("truncate", "error", "chunk")

# Consecutive windows of a chunked text share an eighth of their tokens, so that what a border cuts is whole in one.
_OVERLAP = 8


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model will read it.

    Attributes:
        windows: one sequence of token ids, or several for a chunked text; each with its prompt and special tokens.
        token_count: tokens of the text that the model reads, its prompt and special tokens included; what the windows
            of a chunked text repeat counts once.
        truncated: whether tokens were cut off.
    """

    windows: tuple[list[int], ...]
    token_count: int
    truncated: bool


class TextTokenizer:
    """The checkpoint's own tokenizer, without any of its padding and truncation.

    Attributes:
        max_tokens: most tokens in one sequence, special tokens included.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read tokenizer.json.

        Raises:
            ModelLoadError: it is missing or malformed, or lacks the token that must end every text.
        """
        self.max_tokens = checkpoint.max_tokens
        self._lock = threading.Lock()  # `tokenizers` objects must not be used by two threads at once
        self._tokenizer = _load(checkpoint)
        self._before, self._after = self._special_tokens(checkpoint)
        if self._room < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: max_tokens {self.max_tokens} leaves no room beside the special tokens"
            )

    @property
    def _room(self) -> int:
        return self.max_tokens - len(self._before) - len(self._after)

    def __call__(self, texts: Sequence[str], prompt: str, on_overflow: OverflowPolicy) -> list[TokenizedText]:
        """Tokenise valid strings, each with the prompt before it.

        Raises:
            InvalidInputError: a text yields no token, is too long for the policy "error", or the prompt leaves no room
                to chunk beside it; the text's index is named.
        """
        bodies = self._encode([prompt + text for text in texts])
        return [
            self._fit(index, body, text, prompt, on_overflow)
            for index, (body, text) in enumerate(zip(bodies, texts, strict=True))
        ]

    def _fit(self, index: int, body: list[int], text: str, prompt: str, on_overflow: OverflowPolicy) -> TokenizedText:
        special = len(self._before) + len(self._after)
        if not body and not special:
            raise InvalidInputError(f"text {index} yields no token: found {text[:40]!r}", index)
        if len(body) <= self._room:
            return TokenizedText((self._frame(body),), len(body) + special, truncated=False)
        if on_overflow == "truncate":
            return TokenizedText((self._frame(body[: self._room]),), self.max_tokens, truncated=True)
        if on_overflow == "error":
            raise InvalidInputError(
                f"text {index} has {len(body) + special} tokens and the model takes {self.max_tokens}: "
                "shorten it, or pass on_overflow='truncate' or 'chunk'",
                index,
            )
        return self._chunk(index, text, prompt)

    def _chunk(self, index: int, text: str, prompt: str) -> TokenizedText:
        """Overlapping windows over the text, each behind the whole prompt."""
        prompt_ids, body = self._encode([prompt, text]) if prompt else ([], *self._encode([text]))
        width = self._room - len(prompt_ids)
        step = width - width // _OVERLAP
        if step < 1:
            raise InvalidInputError(
                f"text {index} cannot be chunked: its prompt of {len(prompt_ids)} tokens fills the {self.max_tokens} "
                "that the model takes; use a shorter prompt",
                index,
            )
        starts = range(0, max(len(body) - width + step, 1), step)
        windows = tuple(self._frame(prompt_ids + body[start : start + width]) for start in starts)
        count = len(self._before) + len(prompt_ids) + len(body) + len(self._after)
        return TokenizedText(windows, count, truncated=False)

    def _frame(self, body: list[int]) -> list[int]:
        return [*self._before, *body, *self._after]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        with self._lock:
            return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _special_tokens(self, checkpoint: Checkpoint) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        framed = self._tokenizer.encode("a", add_special_tokens=True).ids
        for start in range(len(framed) - len(plain) + 1):
            if framed[start : start + len(plain)] == plain:
                return framed[:start], framed[start + len(plain) :]
        raise ModelLoadError(f"{checkpoint.directory / 'tokenizer.json'}: the post-processor changes a text's tokens")


def _load(checkpoint: Checkpoint) -> Tokenizer:
    path = checkpoint.directory / "tokenizer.json"
    if not path.is_file():
        raise ModelLoadError(f"{path} is missing; convert the model's tokenizer with transformers' save_pretrained")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelLoadError(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if checkpoint.lower_case:
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    final = checkpoint.architecture.final_token
    if final is not None:
        _end_with(tokenizer, final, path.name)
    return tokenizer


def _end_with(tokenizer: Tokenizer, token: str, file_name: str) -> None:
    """Have every text end with a token, where a conversion lost the post-processor that appends it."""
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise ModelLoadError(f"{file_name} has no {token}, which must end every text for this model's pooling")
    if tokenizer.encode("a").ids[-1] != token_id:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {token}", pair=None, special_tokens=[(token, token_id)]
        )
