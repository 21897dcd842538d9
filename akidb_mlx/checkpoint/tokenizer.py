"""Texts to token ids, and the treatment of a text that is longer than the model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tokenizers import Tokenizer, normalizers, processors

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import InferenceError, InvalidInputError, ModelLoadError
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.runtime.abandonment import run_until
from akidb_mlx.runtime.locks import ExclusiveLock, Latch, hold_until
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
        self._short = _LockedTokenizer(_load(checkpoint))
        self._long = _LongTexts(partial(_load, checkpoint))
        self._before, self._after = (np.array(ids, np.int32) for ids in self._short.special_tokens(checkpoint))
        self._prefixes: dict[str, TokenIds] = {}
        if self._capacity < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: max_tokens {self.max_tokens} leaves no room beside the special tokens"
            )

    @property
    def _capacity(self) -> int:
        """Return how many tokens of a text fit beside the special tokens."""
        return self.max_tokens - len(self._before) - len(self._after)

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
            InvalidInputError: a text yields no token, is too long for the policy "error", or the prompt leaves no room
                to chunk beside it; the text's index is named.
            DeadlineExceededError: the deadline passed.
        """
        bodies = self._encode([prompt + text for text in texts], deadline)
        return [
            self._fit(index, body, text, prompt, on_overflow, deadline)
            for index, (body, text) in enumerate(zip(bodies, texts, strict=True), first)
        ]

    def prefix(self, prompt: str, deadline: Deadline = NEVER) -> TokenIds:
        """Return the tokens that every text with this prompt begins with."""
        if prompt not in self._prefixes:
            variants = self._encode([prompt + continuation for continuation in _CONTINUATIONS], deadline)
            shortest = min(map(len, variants))
            same = np.all([ids[:shortest] == variants[0][:shortest] for ids in variants], axis=0)
            count = shortest if same.all() else int(np.argmin(same))
            if len(self._prefixes) >= _MAX_PROMPTS:
                self._prefixes.clear()
            self._prefixes[prompt] = np.concatenate([self._before, variants[0][:count]])
        return self._prefixes[prompt]

    def _fit(
        self, index: int, body: TokenIds, text: str, prompt: str, on_overflow: OverflowPolicy, deadline: Deadline
    ) -> TokenizedText:
        special = len(self._before) + len(self._after)
        if not len(body) and not special:
            raise InvalidInputError(f"text {index} yields no token: found {text[:40]!r}", index)
        if len(body) <= self._capacity:
            return TokenizedText((self._frame(body),), len(body) + special, truncated=False)
        if on_overflow == "truncate":
            return TokenizedText((self._frame(body[: self._capacity]),), self.max_tokens, truncated=True)
        if on_overflow == "error":
            raise InvalidInputError(
                f"text {index} has {len(body) + special} tokens and the model takes {self.max_tokens}: "
                "shorten it, or pass on_overflow='truncate' or 'chunk'",
                index,
            )
        return self._chunk(index, text, prompt, deadline)

    def _chunk(self, index: int, text: str, prompt: str, deadline: Deadline) -> TokenizedText:
        """Return overlapping windows over the text, each behind the whole prompt."""
        (body,) = self._encode([text], deadline)
        prompt_ids = self._encode([prompt], deadline)[0] if prompt else self._before[:0]
        width = self._capacity - len(prompt_ids)
        step = width - width // _OVERLAP
        if step < 1:
            raise InvalidInputError(
                f"text {index} cannot be chunked: its prompt of {len(prompt_ids)} tokens fills the {self.max_tokens} "
                "that the model takes; use a shorter prompt",
                index,
            )
        starts = range(0, max(len(body) - width + step, 1), step)
        windows = tuple(self._frame(prompt_ids, body[start : start + width]) for start in starts)
        count = len(self._before) + len(prompt_ids) + len(body) + len(self._after)
        return TokenizedText(windows, count, truncated=False)

    def _frame(self, *body: TokenIds) -> TokenIds:
        return np.concatenate([self._before, *body, self._after])

    def _encode(self, texts: list[str], deadline: Deadline = NEVER) -> list[TokenIds]:
        """Return the token ids of each text, without special tokens."""
        longest = _LONG if deadline.left() is None else _LONG_BEFORE_DEADLINE
        ids: list[TokenIds] = []
        for piece in _pieces(texts, longest):
            deadline.check()
            long = sum(map(len, piece)) > longest
            ids += (self._long if long else self._short).encode(piece, deadline)
        return ids


class _LockedTokenizer:
    """A tokenizer that one thread uses at a time; those of `tokenizers` may fail when several do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = ExclusiveLock()

    def encode(self, texts: list[str], deadline: Deadline) -> list[TokenIds]:
        """Return the token ids of each text, without special tokens.

        Raises:
            InferenceError: the tokenizer failed.
            DeadlineExceededError: the deadline passed while another thread used the tokenizer.
        """
        with hold_until(deadline, self._lock):
            return _encode(self._tokenizer, texts)

    def special_tokens(self, checkpoint: Checkpoint) -> tuple[list[int], list[int]]:
        """Return the tokens that the post-processor puts before and after a text.

        Raises:
            ModelLoadError: it does something else.
        """
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        framed = self._tokenizer.encode("a", add_special_tokens=True).ids
        for start in range(len(framed) - len(plain) + 1):
            if framed[start : start + len(plain)] == plain:
                return framed[:start], framed[start + len(plain) :]
        raise ModelLoadError(f"{checkpoint.directory / 'tokenizer.json'}: the post-processor changes a text's tokens")


class _LongTexts:
    """Tokenises long texts one after another, on a tokenizer of its own that is loaded for the first of them.

    The library cannot be interrupted. A caller whose deadline passes leaves, and the tokenizer is left to the thread
    that still uses it; the next caller gets another. Only callers with a deadline wait for such a thread to end, so
    that there is one at most.
    """

    def __init__(self, load: Callable[[], Tokenizer]) -> None:
        self._load = load
        self._tokenizer: Tokenizer | None = None
        self._abandoned: Latch | None = None
        self._lock = ExclusiveLock()

    def encode(self, texts: list[str], deadline: Deadline) -> list[TokenIds]:
        """Return the token ids of each text, without special tokens; raises what `_LockedTokenizer.encode` does."""
        while True:
            if (
                deadline.left() is not None
                and self._abandoned is not None
                and not self._abandoned.wait(deadline.left())
            ):
                raise deadline.error()
            with hold_until(deadline, self._lock):
                if deadline.left() is None:
                    self._tokenizer = self._tokenizer or self._load()
                    return _encode(self._tokenizer, texts)
                if self._abandoned is not None and not self._abandoned.wait(0):
                    continue  # left behind by a caller for whose turn this one waited
                return self._encode_until(texts, deadline)

    def _encode_until(self, texts: list[str], deadline: Deadline) -> list[TokenIds]:
        """Tokenise on another thread, and leave it with its tokenizer when the deadline passes."""
        kept, load = self._tokenizer, self._load

        def work() -> tuple[Tokenizer, list[TokenIds]]:
            tokenizer = kept or load()
            return tokenizer, _encode(tokenizer, texts)

        def leave(done: Latch) -> None:
            self._tokenizer, self._abandoned = None, done

        self._tokenizer, ids = run_until(deadline, work, leave)
        return ids


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


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[TokenIds]:
    try:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a native panic is no Exception
        raise InferenceError(f"the tokenizer failed: {type(error).__name__}: {error}") from error
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


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
