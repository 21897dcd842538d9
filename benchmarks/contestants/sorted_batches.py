"""Tokens of texts in batches of like length, for the contestants that compute a graph and no more."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.contestants import ModelFiles, Prompt

Vectors = NDArray[np.float32]
Inputs = dict[str, NDArray[np.int64]]
_Worker = TypeVar("_Worker")
_UNBOUNDED = 1 << 30


class Workers(ABC, Generic[_Worker]):
    """Several of a library's means to compute a batch, each of which computes one at a time.

    Attributes:
        name: says how many, and with what share of the cores.
    """

    def __init__(self, name: str, workers: Sequence[_Worker]) -> None:
        self.name = name
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._pool = ThreadPoolExecutor(len(workers))

    def run(self, batches: Sequence[Inputs]) -> list[Vectors]:
        """Return the vectors of each batch."""
        if len(batches) == 1:
            return [self._run(batches[0])]
        return list(self._pool.map(self._run, batches))

    def _run(self, batch: Inputs) -> Vectors:
        worker = self._free.get()
        try:
            return self.compute(worker, batch)
        finally:
            self._free.put(worker)

    @abstractmethod
    def compute(self, worker: _Worker, batch: Inputs) -> Vectors:
        """Return the vectors of a batch."""


class Way:
    """One way to compute: so many workers, and batches of at most so many texts or tokens, padding included."""

    def __init__(self, workers: Workers[Any], *, texts: int | None = None, tokens: int | None = None) -> None:
        self.most_texts, self.most_tokens = texts or _UNBOUNDED, tokens or _UNBOUNDED
        self.run = workers.run
        self.name = f"{workers.name}, {f'{texts} texts' if texts else f'{tokens} tokens'} a batch"


def ways(many: Workers[Any], one: Workers[Any]) -> list[Way]:
    """Return the ways that are tried: many workers of a core each, or one of all cores."""
    return [*(Way(many, tokens=count) for count in (512, 1024, 256)), Way(one, texts=32)]


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
