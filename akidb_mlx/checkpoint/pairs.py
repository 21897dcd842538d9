"""Pairs of texts to token ids, and the treatment of a pair that is longer than the model takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.pair_template import PairTemplate
from akidb_mlx.checkpoint.tokenization.frame import PairFrame
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, window_starts
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.vectors import TokenIds

Pair = tuple[str, str]

# Texts in place of others, to find which tokens of a template do not depend on them; sentence-transformers' choice.
_FILLERS = ("0", "1 2 3 4")
# Most prompts whose last tokens are kept.
_MAX_PROMPTS = 64


@dataclass(frozen=True)
class TokenizedPair:
    """A pair as the model reads it.

    Attributes:
        windows: token ids, one sequence, or several that hold parts of a document that is too long.
        segments: for each window, how many of its tokens are of the first token type; 0 where the model is not told.
        token_count: tokens that the model reads; the document's in several windows count once.
        truncated: whether tokens were cut off.
    """

    windows: tuple[TokenIds, ...]
    segments: tuple[int, ...]
    token_count: int
    truncated: bool


class PairTokenizer(ABC):
    """The checkpoint's own tokenizer for pairs of a query and a document; safe to call from any thread.

    Attributes:
        max_tokens: most tokens in one sequence.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the tokenizer's files.

        Raises:
            ModelLoadError: one is missing, malformed or not supported.
        """
        self._texts = TextTokenizer(checkpoint)
        self.max_tokens = checkpoint.max_tokens

    def __call__(
        self,
        pairs: Sequence[Pair],
        prompt: str,
        on_overflow: OverflowPolicy,
        first: int = 0,
        deadline: Deadline = NEVER,
    ) -> list[TokenizedPair]:
        """Tokenise pairs of valid strings.

        Args:
            pairs: queries and documents.
            prompt: the string for each query; "" for none.
            on_overflow: how a pair is treated that is too long.
            first: the index, in the caller's list, of the first of them.
            deadline: when the caller leaves.

        Raises:
            InvalidInputError: a pair yields no token, or one that the model has no vector for, or is too long for the
                policy; the pair's index is named.
            DeadlineExceededError: the deadline passed.
        """
        tokenized = self._tokenize(pairs, prompt, on_overflow, first, deadline)
        for index, pair in enumerate(tokenized, first):
            self._texts.check_vectors("pair", index, pair.windows)
        return tokenized

    @abstractmethod
    def _tokenize(
        self, pairs: Sequence[Pair], prompt: str, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> list[TokenizedPair]:
        """Tokenise pairs; see `__call__`."""

    def _refuse(self, index: int, size: int) -> InvalidInputError:
        return InvalidInputError(
            f"pair {index} has {size} tokens and the model takes {self.max_tokens}: shorten it, or pass "
            "on_overflow='truncate' or 'chunk'",
            index,
        )

    def _starts(self, index: int, size: int, width: int) -> range:
        """Return where the windows over a document of `size` tokens begin."""
        starts = window_starts(size, width)
        if starts is None:
            raise InvalidInputError(
                f"pair {index} cannot be chunked: all but its document fills the {self.max_tokens} tokens that the "
                "model takes; shorten the query or the prompt",
                index,
            )
        return starts


class FramedPairs(PairTokenizer):
    """Puts the special tokens around the two texts that the tokenizer's post-processor puts there."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the tokenizer's files; see `PairTokenizer`."""
        super().__init__(checkpoint)
        assert self._texts.pair_frame is not None  # the checkpoint is a reranker's
        frame: PairFrame = self._texts.pair_frame
        self._before, self._between, self._after = (
            np.array(ids, np.int32) for ids in (frame.before, frame.between, frame.after)
        )
        self._first_type = frame.first_type
        self._special = len(self._before) + len(self._between) + len(self._after)
        self._capacity = self.max_tokens - self._special
        if self._capacity < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: max_tokens {self.max_tokens} leaves no room beside the special tokens"
            )

    def _tokenize(
        self, pairs: Sequence[Pair], prompt: str, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> list[TokenizedPair]:
        pairs = [(prompt + query, document) for query, document in pairs]
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        ids = dict(zip(texts, self._texts.encode(texts, deadline), strict=True))
        return [
            self._fit(index, ids[query], ids[document], on_overflow)
            for index, (query, document) in enumerate(pairs, first)
        ]

    def _fit(self, index: int, query: TokenIds, document: TokenIds, on_overflow: OverflowPolicy) -> TokenizedPair:
        size = len(query) + len(document)
        if not size + self._special:
            raise InvalidInputError(f"pair {index} yields no token", index)
        if size <= self._capacity:
            return self._frame(query, [document], size + self._special)
        if on_overflow == "error":
            raise self._refuse(index, size + self._special)
        if on_overflow == "chunk":
            width = self._capacity - len(query)
            windows = [document[start : start + width] for start in self._starts(index, len(document), width)]
            return self._frame(query, windows, size + self._special)
        kept = longest_first(len(query), len(document), self._capacity)
        query, document = (
            ids[len(ids) - count :] if self._texts.keeps_end else ids[:count]
            for ids, count in zip((query, document), kept, strict=True)
        )
        return self._frame(query, [document], self.max_tokens, truncated=True)

    def _frame(
        self, query: TokenIds, documents: list[TokenIds], token_count: int, truncated: bool = False
    ) -> TokenizedPair:
        windows = tuple(
            np.concatenate([self._before, query, self._between, document, self._after]) for document in documents
        )
        segment = 0 if self._first_type is None else len(self._before) + len(query) + self._first_type
        return TokenizedPair(windows, (segment,) * len(windows), token_count, truncated)


class TemplatePairs(PairTokenizer):
    """Makes one text of a pair by a template, and tokenises that."""

    def __init__(self, checkpoint: Checkpoint, template: PairTemplate) -> None:
        """Read the tokenizer's files; see `PairTokenizer`."""
        super().__init__(checkpoint)
        self._template = template
        self._endings: dict[str, TokenIds] = {}

    def _tokenize(
        self, pairs: Sequence[Pair], prompt: str, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> list[TokenizedPair]:
        rendered = [self._render(index, prompt, *pair) for index, pair in enumerate(pairs, first)]
        tokenized = []
        for index, ids in enumerate(self._texts.encode(rendered, deadline), first):
            size = len(ids)
            windows: tuple[TokenIds, ...] = (ids,)
            truncated = size > self.max_tokens and on_overflow != "chunk"
            if not size:
                raise InvalidInputError(f"pair {index} yields no token", index)
            if size > self.max_tokens:
                if on_overflow == "error":
                    raise self._refuse(index, size)
                if on_overflow == "chunk":
                    windows = self._chunk(index, ids, prompt, pairs[index - first][0], deadline)
                else:
                    windows = (self._cut(ids, self._ending(prompt, deadline)),)
            count = self.max_tokens if truncated else size
            tokenized.append(TokenizedPair(windows, (0,) * len(windows), count, truncated))
        return tokenized

    def _render(self, index: int, prompt: str, query: str, document: str) -> str:
        try:
            return self._template.render(prompt, query, document)
        except Exception as error:
            raise InvalidInputError(
                f"pair {index} is refused by the model's chat template: {type(error).__name__}: {str(error)[:200]}",
                index,
            ) from error

    def _cut(self, ids: TokenIds, ending: TokenIds) -> TokenIds:
        """Return the most tokens that the model takes, the last of them those that end every text."""
        kept = ids[len(ids) - self.max_tokens :] if self._texts.keeps_end else ids[: self.max_tokens]
        ending = ending[-self.max_tokens :]
        return np.concatenate([kept[: self.max_tokens - len(ending)], ending])

    def _ending(self, prompt: str, deadline: Deadline) -> TokenIds:
        """Return the tokens that every text with this prompt ends with."""
        if prompt not in self._endings:
            texts = [self._render(0, prompt, filler, filler) for filler in _FILLERS]
            if len(self._endings) >= _MAX_PROMPTS:
                self._endings.clear()
            self._endings[prompt] = _common_ending(self._texts.encode(texts, deadline))
        return self._endings[prompt]

    def _chunk(self, index: int, ids: TokenIds, prompt: str, query: str, deadline: Deadline) -> tuple[TokenIds, ...]:
        """Return windows over the document, each between the tokens that stand before and after it."""
        texts = [self._render(index, prompt, query, filler) for filler in _FILLERS]
        others = [ids, *self._texts.encode(texts, deadline)]
        start = common_beginning(others)
        before, after = ids[:start], _common_ending([one[start:] for one in others])
        document = ids[start : len(ids) - len(after)]
        width = self.max_tokens - len(before) - len(after)
        return tuple(
            np.concatenate([before, document[one : one + width], after])
            for one in self._starts(index, len(document), width)
        )


def pair_tokenizer(checkpoint: Checkpoint) -> PairTokenizer:
    """Return the tokenizer of a reranker.

    Raises:
        ModelLoadError: a file is missing, malformed or not supported.
    """
    template = None if checkpoint.scoring is None else checkpoint.scoring.template
    return FramedPairs(checkpoint) if template is None else TemplatePairs(checkpoint, template)


def longest_first(first: int, second: int, most: int) -> tuple[int, int]:
    """Return how many tokens of two texts are kept, `most` at most: the longer one is cut first, then both alike.

    Where both are cut, an odd token is the longer one's, or the second's of two that are equally long, as in
    transformers' `longest_first`.
    """
    short, long = sorted((first, second))
    if short + max(short, most - short) > most:
        short, long = most // 2, most - most // 2
    else:
        long = min(long, most - short)
    return (long, short) if first > second else (short, long)


def common_beginning(sequences: Sequence[TokenIds]) -> int:
    """Return how many tokens all sequences begin with."""
    shortest = min(map(len, sequences))
    same = np.all([ids[:shortest] == sequences[0][:shortest] for ids in sequences], axis=0)
    return shortest if same.all() else int(np.argmin(same))


def _common_ending(sequences: Sequence[TokenIds]) -> TokenIds:
    """Return the tokens that all sequences end with."""
    count = common_beginning([ids[::-1] for ids in sequences])
    return sequences[0][len(sequences[0]) - count :]
