"""Texts to token ids, and what happens to a text that is longer than the model takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, normalizers, processors

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.engine.batching import TokenIds
from akidb_mlx.errors import InferenceError, InvalidInputError, ModelLoadError

OverflowPolicy = Literal["truncate", "error", "chunk"]
OVERFLOW_POLICIES: tuple[OverflowPolicy, ...] = ("truncate", "error", "chunk")

# Consecutive windows of a chunked text share an eighth of their tokens, so that what a border cuts is whole in one.
_OVERLAP = 8
# Texts of more characters than this, together, have a tokenizer of their own, so that a short call need not wait.
_LONG = 1 << 17
# What may follow a prompt, to find which of the prompt's tokens do not depend on it.
_CONTINUATIONS = ("a", " a", "1", "\n", ".", "\u3042")
# Most prompts whose tokens are remembered.
_MAX_PROMPTS = 64


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model will read it.

    Attributes:
        windows: token ids, one sequence or several for a chunked text; each with its prompt and special tokens.
        token_count: tokens of the text that the model reads, its prompt and special tokens included; what the windows
            of a chunked text repeat counts once.
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
        self._long: _LockedTokenizer | None = None
        self._load_another = partial(_load, checkpoint)
        self._loading = threading.Lock()
        self._before, self._after = (np.array(ids, np.int32) for ids in self._short.special_tokens(checkpoint))
        self._prefixes: dict[str, TokenIds] = {}
        if self._room < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: max_tokens {self.max_tokens} leaves no room beside the special tokens"
            )

    @property
    def _room(self) -> int:
        return self.max_tokens - len(self._before) - len(self._after)

    def __call__(
        self, texts: Sequence[str], prompt: str, on_overflow: OverflowPolicy, first: int = 0
    ) -> list[TokenizedText]:
        """Tokenise valid strings, each with the prompt before it; may be called from any thread.

        Args:
            texts: the strings.
            prompt: what goes before each.
            on_overflow: what happens to one that is too long.
            first: the index, in the caller's list, of the first of them.

        Raises:
            InvalidInputError: a text yields no token, is too long for the policy "error", or the prompt leaves no room
                to chunk beside it; the text's index is named.
        """
        bodies = self._encode([prompt + text for text in texts])
        return [
            self._fit(index, body, text, prompt, on_overflow)
            for index, (body, text) in enumerate(zip(bodies, texts, strict=True), first)
        ]

    def prefix(self, prompt: str) -> TokenIds:
        """The tokens that a text with this prompt begins with, whatever it is."""
        if prompt not in self._prefixes:
            variants = self._encode([prompt + continuation for continuation in _CONTINUATIONS])
            shortest = min(map(len, variants))
            same = np.all([ids[:shortest] == variants[0][:shortest] for ids in variants], axis=0)
            count = shortest if same.all() else int(np.argmin(same))
            if len(self._prefixes) >= _MAX_PROMPTS:
                self._prefixes.clear()
            self._prefixes[prompt] = np.concatenate([self._before, variants[0][:count]])
        return self._prefixes[prompt]

    def _fit(self, index: int, body: TokenIds, text: str, prompt: str, on_overflow: OverflowPolicy) -> TokenizedText:
        special = len(self._before) + len(self._after)
        if not len(body) and not special:
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
        prompt_ids, body = self._encode([prompt, text]) if prompt else (self._before[:0], *self._encode([text]))
        width = self._room - len(prompt_ids)
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

    def _encode(self, texts: list[str]) -> list[TokenIds]:
        """Token ids of each, without special tokens."""
        if sum(map(len, texts)) <= _LONG:
            return self._short.encode(texts)
        with self._loading:
            self._long = self._long or _LockedTokenizer(self._load_another())
        return self._long.encode(texts)


class _LockedTokenizer:
    """A tokenizer that one thread uses at a time; those of `tokenizers` may fail when several do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def encode(self, texts: list[str]) -> list[TokenIds]:
        """Token ids of each text, without special tokens.

        Raises:
            InferenceError: the tokenizer failed.
        """
        try:
            with self._lock:
                encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a native panic is no Exception
            raise InferenceError(f"the tokenizer failed: {type(error).__name__}: {error}") from error
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def special_tokens(self, checkpoint: Checkpoint) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text.

        Raises:
            ModelLoadError: it does something else.
        """
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
