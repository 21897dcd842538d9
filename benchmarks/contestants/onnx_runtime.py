"""Run ONNX Runtime by itself, on the graph that `onnx_export` wrote, in the fastest of a few ways."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import onnxruntime

from benchmarks.contestants import Encode, ModelFiles
from benchmarks.contestants.sorted_batches import BestOf, Inputs, Vectors

THREAD_SAFE = True
_CORES = int(os.environ["OMP_NUM_THREADS"])
_UNBOUNDED = 1 << 30


class Sessions:
    """Sessions that compute batches side by side."""

    def __init__(self, file: Path, count: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.count, self.threads = count, threads
        self._free: SimpleQueue[onnxruntime.InferenceSession] = SimpleQueue()
        for _ in range(count):
            self._free.put(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))
        self._pool = ThreadPoolExecutor(count)

    def run(self, batches: Sequence[Inputs]) -> list[Vectors]:
        if len(batches) == 1:
            return [self._run(batches[0])]
        return list(self._pool.map(self._run, batches))

    def _run(self, batch: Inputs) -> Vectors:
        session = self._free.get()
        try:
            (vectors,) = session.run(None, batch)
        finally:
            self._free.put(session)
        return np.asarray(vectors, np.float32)


class _Way:
    def __init__(self, sessions: Sessions, most_texts: int, most_tokens: int) -> None:
        self.most_texts, self.most_tokens, self.run = most_texts, most_tokens, sessions.run
        size = f"{most_texts} texts" if most_texts < _UNBOUNDED else f"{most_tokens} tokens"
        self.name = f"{sessions.count} x {sessions.threads} threads, {size} a batch"


def load(model: ModelFiles) -> Encode:
    folder = Path(model.onnx)
    fused = folder / "fused.onnx"
    file = fused if fused.exists() else folder / "model.onnx"
    alone, together = Sessions(file, _CORES, 1), Sessions(file, 1, _CORES)
    ways = [
        _Way(alone, _UNBOUNDED, 512),
        _Way(alone, _UNBOUNDED, 1024),
        _Way(alone, _UNBOUNDED, 256),
        _Way(together, 32, _UNBOUNDED),
    ]
    return BestOf(model, ways)
