"""Texts to token ids for a static model, many at once: a whole slice of a call in two arrays.

A static model computes a text in microseconds, so that work in Python for each text would take most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, TokenizedText, no_token_error, too_long_error
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.vectors import TokenIds


@dataclass(frozen=True, eq=False)
class PackedTexts:
    """Texts as a static model reads them.

    Attributes:
        ids: (tokens,) int32, the tokens of all windows, one window after another.
        lengths: (windows,) int32, the tokens of each window; at least 1.
        windows: for each text, the lengths of its windows; several where it was chunked.
        truncated: for each text, whether it was cut.
    """

    ids: TokenIds
    lengths: TokenIds
    windows: list[list[int]]
    token_counts: list[int]
    truncated: list[bool]


class StaticTokenizer(TextTokenizer):
    """The tokenizer of a static model, which puts no special token around a text."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the tokenizer's files; see `TextTokenizer`."""
        super().__init__(checkpoint)
        self._unknown = self._loaded.unknown
        self._longest = self._loaded.longest_text

    def pack(
        self,
        texts: Sequence[str],
        prompt: str,
        on_overflow: OverflowPolicy,
        first: int = 0,
        deadline: Deadline = NEVER,
    ) -> PackedTexts:
        """Tokenise valid strings; see `TextTokenizer.__call__` for the arguments and errors."""
        if on_overflow == "chunk":
            return _pack(self(texts, prompt, on_overflow, first, deadline))
        given = [prompt + text for text in texts] if prompt else list(texts)
        truncated = np.zeros(len(given), bool)
        if on_overflow == "truncate" and self._longest is not None:
            truncated |= np.fromiter(map(len, given), np.int64, len(given)) > self._longest
            if truncated.any():
                given = [text[: self._longest] for text in given]
        sequences = [encoding.ids for encoding in self._encodings(given, deadline)]
        lengths = np.fromiter(map(len, sequences), np.int32, len(sequences))
        ids = np.fromiter(chain.from_iterable(sequences), np.int32, int(lengths.sum()))
        over = lengths > self.max_tokens
        if over.any():
            if on_overflow == "error":
                index = int(np.argmax(over))
                raise too_long_error(first + index, int(lengths[index]), self.max_tokens)
            truncated |= over
            places = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            if self.keeps_end:
                places = np.repeat(lengths, lengths) - 1 - places
            ids, lengths = _select(ids, lengths, places < self.max_tokens)
        if self._unknown is not None:  # after the cut, as in model2vec
            ids, lengths = _select(ids, lengths, ids != self._unknown)
        if not lengths.all():
            index = int(np.argmin(lengths))
            raise no_token_error(first + index, texts[index])
        if self._without_vector:
            self._check_all_vectors(ids, lengths, first)
        counts = lengths.tolist()
        return PackedTexts(ids, lengths, [[count] for count in counts], counts, truncated.tolist())

    def encode(self, texts: list[str], deadline: Deadline = NEVER) -> list[TokenIds]:
        """Return the token ids of each text, without unknown ones where the model leaves them out."""
        encoded = super().encode(texts, deadline)
        return encoded if self._unknown is None else [ids[ids != self._unknown] for ids in encoded]

    def _check_all_vectors(self, ids: TokenIds, lengths: TokenIds, first: int) -> None:
        """Refuse a text with a token that the tokenizer knows and the model does not."""
        missing = np.isin(ids, list(self._without_vector))
        if missing.any():
            at = int(np.argmax(missing))
            index = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
            self.check_vectors("text", first + index, (ids[at : at + 1],))


def _select(ids: TokenIds, lengths: TokenIds, kept: NDArray[np.bool_]) -> tuple[TokenIds, TokenIds]:
    """Return the tokens that are kept, and how many there are of each text."""
    if kept.all():
        return ids, lengths
    owners = np.repeat(np.arange(len(lengths)), lengths)
    return ids[kept], np.bincount(owners[kept], minlength=len(lengths)).astype(np.int32)


def _pack(texts: list[TokenizedText]) -> PackedTexts:
    windows = [[len(window) for window in text.windows] for text in texts]
    return PackedTexts(
        ids=np.concatenate([window for text in texts for window in text.windows]),
        lengths=np.array(list(chain.from_iterable(windows)), np.int32),
        windows=windows,
        token_counts=[text.token_count for text in texts],
        truncated=[text.truncated for text in texts],
    )
