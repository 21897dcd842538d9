"""Tokens of texts in batches of like length, for the contestants that compute a graph and no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.contestants import ModelFiles, Prompt

Vectors = NDArray[np.float32]
Inputs = dict[str, NDArray[np.int64]]


class Way(Protocol):
    """One way to compute: how many threads, and how large a batch.

    Attributes:
        name: says which.
        most_texts: in a batch.
        most_tokens: in a batch, with padding.
    """

    name: str
    most_texts: int
    most_tokens: int

    def run(self, batches: Sequence[Inputs]) -> list[Vectors]:
        """Return the vectors of each batch."""
        ...


class BestOf:
    """A graph that is computed in the fastest of several ways, found anew for each number of texts."""

    def __init__(self, model: ModelFiles, ways: Sequence[Way]) -> None:
        self._tokenizer = Tokenizer.from_file(str(Path(model.directory) / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)
        self._ways = ways
        self._best: dict[int, Way] = {1: ways[0]}
        self.note = ""

    def __call__(self, texts: list[str], prompt: Prompt | None) -> Vectors:
        """Embed texts; the first time for each number of them in all ways."""
        given = [prompt.text + text for text in texts] if prompt else texts
        if len(texts) not in self._best:
            seconds = {way: _seconds(lambda way=way: self._encode(given, way)) for way in self._ways}
            self._best[len(texts)] = min(seconds, key=lambda way: seconds[way])
        way = self._best[len(texts)]
        self.note = way.name
        return self._encode(given, way)

    def _encode(self, texts: list[str], way: Way) -> Vectors:
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts)]
        rows = list(_batches(tokens, way))
        found = np.concatenate(way.run([_pad([tokens[i] for i in chosen]) for chosen in rows]))
        vectors = np.empty_like(found)
        vectors[np.concatenate(rows)] = found
        return vectors


def _batches(tokens: list[list[int]], way: Way) -> Iterator[list[int]]:
    """Yield the indices of each batch, the longest texts first."""
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    start = 0
    while start < len(order):
        count = max(1, min(way.most_texts, way.most_tokens // len(tokens[order[start]])))
        yield order[start : start + count]
        start += count


def _pad(tokens: list[list[int]]) -> Inputs:
    ids, mask = np.zeros((2, len(tokens), len(tokens[0])), np.int64)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
