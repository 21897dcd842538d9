"""Texts to token ids, and the treatment of a text that is longer than the model takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenization.frame import Frame
from akidb_mlx.checkpoint.tokenization.loading import load_tokenizer
from akidb_mlx.checkpoint.tokenization.shared import LockedTokenizer, LongTexts
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.vectors import TokenIds

# Consecutive windows of a chunked text share an eighth of their tokens, so that what a border cuts is whole in one.
_OVERLAP = 8
# Texts of more characters than this, together, have a tokenizer of their own, so that a short call need not wait.
_LONG = 1 << 17
# The same where the caller has a deadline, which is looked at between pieces: 25 ms of work.
_LONG_BEFORE_DEADLINE = 1 << 14
# Texts that follow a prompt in turn, to find which of the prompt's tokens do not depend on its continuation.
_CONTINUATIONS = ("a", " a", "1", "\n", ".", "\u3042")
# Most prompts whose tokens are kept.
_MAX_PROMPTS = 64


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model reads it.

    Attributes:
        windows: token ids, one sequence or several for a chunked text; each with its prompt and special tokens.
        token_count: tokens of the text that the model reads, its prompt and special tokens included; tokens that
            several windows of a chunked text share count once.
        truncated: whether tokens were cut off.
    """

    windows: tuple[TokenIds, ...]
    token_count: int
    truncated: bool


@dataclass(frozen=True)
class Token:
    """A token of a text.

    Attributes:
        id: its number.
        text: the entry of the vocabulary.
        special: whether it stands around the text rather than for a part of it.
        start: index in the text, prompt included, of the first character that it stands for; None where it is special.
        stop: index after the last one.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TextTokenizer:
    """The checkpoint's own tokenizer, without any of its padding and truncation.

    Attributes:
        max_tokens: most tokens in one sequence, special tokens included.
        keeps_end: whether a text that is too long loses its beginning instead of its end.
        pair_frame: the special tokens around the texts of a pair, in a reranker.
    """

    def __init__(self, checkpoint: Checkpoint, framed: bool = True) -> None:
        """Read the tokenizer's files.

        Args:
            checkpoint: the model.
            framed: whether special tokens stand around a text.

        Raises:
            ModelLoadError: one is missing, malformed or not supported, or gives tokens that the model does not have.
        """
        self.max_tokens = checkpoint.max_tokens
        self._loaded = loaded = load_tokenizer(checkpoint)
        self._short = LockedTokenizer(loaded.tokenizer)
        self._long = LongTexts(lambda: load_tokenizer(checkpoint).tokenizer)
        frame = loaded.frame if framed else Frame()
        self._before, self._after = (np.array(ids, np.int32) for ids in (frame.before, frame.after))
        self.keeps_end = loaded.keeps_end
        self.pair_frame = loaded.pair_frame
        self._without_vector = loaded.without_vector
        self._prefixes: dict[str, TokenIds] = {}
        if self._capacity < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: max_tokens {self.max_tokens} leaves no room beside the special tokens"
            )
        if not len(self._after) and not all(head.pooling.include_prompt for head in checkpoint.heads.values()):
            raise ModelLoadError(
                f"{checkpoint.directory}: include_prompt = False is not supported with a tokenizer that ends no text "
                "with a special token: the reference counts the prompt's tokens by it"
            )

    @property
    def _capacity(self) -> int:
        """Return how many tokens of a text fit beside the special tokens."""
        return self.max_tokens - len(self._before) - len(self._after)

    def limited(self, max_tokens: int) -> TextTokenizer:
        """Return the same tokenizer for texts of at most so many tokens."""
        limited = copy(self)
        limited.max_tokens = max_tokens
        return limited

    @property
    def special(self) -> Mapping[str, int]:
        """Return the ids of special tokens, by their names in tokenizer_config.json."""
        return self._loaded.special

    def number(self, token: str) -> int | None:
        """Return the id of a token; None where there is none."""
        found: int | None = self._loaded.tokenizer.token_to_id(token)
        return found

    def token(self, number: int) -> str | None:
        """Return the token of an id; None where there is none."""
        name: str | None = self._loaded.tokenizer.id_to_token(number)
        return name

    def __call__(
        self,
        texts: Sequence[str],
        prompt: str,
        on_overflow: OverflowPolicy,
        first: int = 0,
        deadline: Deadline = NEVER,
    ) -> list[TokenizedText]:
        """Tokenise valid strings, each with the prompt before it; may be called from any thread.

        Args:
            texts: the strings.
            prompt: the string before each.
            on_overflow: how one is treated that is too long.
            first: the index, in the caller's list, of the first of them.
            deadline: when the caller leaves. The library cannot be interrupted, so work on a long text may go on
                without its caller, on a thread and a tokenizer of its own.

        Raises:
            InvalidInputError: a text yields no token, or one that the model has no vector for, is too long for the
                policy "error", or the prompt leaves no room to chunk beside it; the text's index is named.
            DeadlineExceededError: the deadline passed.
        """
        bodies = self.encode([prompt + text for text in texts], deadline)
        fitted = [
            self._fit(index, body, text, prompt, on_overflow, deadline)
            for index, (body, text) in enumerate(zip(bodies, texts, strict=True), first)
        ]
        for index, text in enumerate(fitted, first):
            self.check_vectors("text", index, text.windows)
        return fitted

    def tokens(self, texts: Sequence[str], add_special: bool = True, deadline: Deadline = NEVER) -> list[list[Token]]:
        """Return the tokens of valid strings, none of them cut; may be called from any thread.

        Args:
            texts: the strings, each with its prompt.
            add_special: whether the special tokens around a text are returned, too.
            deadline: when the caller leaves.
        """
        before, after = (
            [self._special_token(number) for number in ids.tolist()] if add_special else []
            for ids in (self._before, self._after)
        )
        return [
            [
                *before,
                *(
                    Token(number, token, special=False, start=start, stop=stop)
                    for number, token, (start, stop) in zip(
                        encoding.ids, encoding.tokens, encoding.offsets, strict=True
                    )
                    if number != self._loaded.unknown
                ),
                *after,
            ]
            for encoding in self._encodings(list(texts), deadline, offsets=True)
        ]

    def _special_token(self, number: int) -> Token:
        return Token(number, self._loaded.tokenizer.id_to_token(number) or "", special=True, start=None, stop=None)

    def prefix(self, prompt: str, deadline: Deadline = NEVER) -> TokenIds:
        """Return the tokens that every text with this prompt begins with."""
        if prompt not in self._prefixes:
            variants = self.encode([prompt + continuation for continuation in _CONTINUATIONS], deadline)
            shortest = min(map(len, variants))
            same = np.all([ids[:shortest] == variants[0][:shortest] for ids in variants], axis=0)
            count = shortest if same.all() else int(np.argmin(same))
            if len(self._prefixes) >= _MAX_PROMPTS:
                self._prefixes.clear()
            self._prefixes[prompt] = np.concatenate([self._before, variants[0][:count]])
        return self._prefixes[prompt]

    def prompt_length(self, prompt: str, deadline: Deadline = NEVER) -> int:
        """Return how many tokens of each text with this prompt count as the prompt's, the special ones before included.

        As in sentence-transformers, they are those of the prompt alone without the last special token, also where the
        text changes the last of them.
        """
        if not prompt:
            return 0
        (ids,) = self.encode([prompt], deadline)
        return min(len(self._frame(ids)), self.max_tokens) - 1

    def _fit(
        self, index: int, body: TokenIds, text: str, prompt: str, on_overflow: OverflowPolicy, deadline: Deadline
    ) -> TokenizedText:
        special = len(self._before) + len(self._after)
        if not len(body) and not special:
            raise no_token_error(index, text)
        if len(body) <= self._capacity:
            return TokenizedText((self._frame(body),), len(body) + special, truncated=False)
        if on_overflow == "truncate":
            kept = body[-self._capacity :] if self.keeps_end else body[: self._capacity]
            return TokenizedText((self._frame(kept),), self.max_tokens, truncated=True)
        if on_overflow == "error":
            raise too_long_error(index, len(body) + special, self.max_tokens)
        return self._chunk(index, text, prompt, deadline)

    def _chunk(self, index: int, text: str, prompt: str, deadline: Deadline) -> TokenizedText:
        """Return overlapping windows over the text, each behind the whole prompt."""
        (body,) = self.encode([text], deadline)
        prompt_ids = self.encode([prompt], deadline)[0] if prompt else self._before[:0]
        width = self._capacity - len(prompt_ids)
        starts = window_starts(len(body), width)
        if starts is None:
            raise InvalidInputError(
                f"text {index} cannot be chunked: its prompt of {len(prompt_ids)} tokens fills the {self.max_tokens} "
                "that the model takes; use a shorter prompt",
                index,
            )
        windows = tuple(self._frame(prompt_ids, body[start : start + width]) for start in starts)
        count = len(self._before) + len(prompt_ids) + len(body) + len(self._after)
        return TokenizedText(windows, count, truncated=False)

    def check_vectors(self, name: str, index: int, windows: tuple[TokenIds, ...]) -> None:
        """Refuse a text with a token that the tokenizer knows and the model does not; `name` is "text" or "pair"."""
        if not self._without_vector:
            return
        for window in windows:
            number = int(window.max())  # they are the tokens beyond the table
            if number in self._without_vector:
                raise InvalidInputError(
                    f"{name} {index} spells {self._without_vector[number]!r}, a token that the model has no vector "
                    "for: leave it out",
                    index,
                )

    def _frame(self, *body: TokenIds) -> TokenIds:
        return np.concatenate([self._before, *body, self._after])

    def encode(self, texts: list[str], deadline: Deadline = NEVER) -> list[TokenIds]:
        """Return the token ids of each text, without special tokens; may be called from any thread."""
        return [np.array(encoding.ids, dtype=np.int32) for encoding in self._encodings(texts, deadline)]

    def _encodings(self, texts: list[str], deadline: Deadline, offsets: bool = False) -> list[Encoding]:
        longest = _LONG if deadline.left() is None else _LONG_BEFORE_DEADLINE
        encodings: list[Encoding] = []
        for piece in _pieces(texts, longest):
            deadline.check()
            long = sum(map(len, piece)) > longest
            encodings += (self._long if long else self._short).encode(piece, deadline, offsets)
        return encodings


def no_token_error(index: int, text: str) -> InvalidInputError:
    """Return the error of a text of which a model would read nothing; servers log it, so it does not quote the text."""
    return InvalidInputError(f"text {index} yields no token: found {len(text)} characters that are none", index)


def too_long_error(index: int, tokens: int, max_tokens: int) -> InvalidInputError:
    """Return the error of a text that may not be cut."""
    return InvalidInputError(
        f"text {index} has {tokens} tokens and the model takes {max_tokens}: shorten it, or pass "
        "on_overflow='truncate' or 'chunk'",
        index,
    )


def window_starts(size: int, width: int) -> range | None:
    """Return where overlapping windows of `width` tokens over `size` tokens begin; None for windows too narrow."""
    step = width - width // _OVERLAP
    return range(0, max(size - width + step, 1), step) if step >= 1 else None


def _pieces(texts: list[str], characters: int) -> Iterator[list[str]]:
    """Yield the texts in pieces of at most so many characters, or of a single text."""
    piece: list[str] = []
    size = 0
    for text in texts:
        if piece and size + len(text) > characters:
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    if piece:
        yield piece
