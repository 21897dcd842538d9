"""Run OpenVINO in float32, on the graph that `onnx_export` wrote, in the fastest of a few ways."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino

from benchmarks.contestants import Encode, ModelFiles
from benchmarks.contestants.sorted_batches import BestOf, Inputs, Vectors

THREAD_SAFE = True
_CORES = int(os.environ["OMP_NUM_THREADS"])
_UNBOUNDED = 1 << 30


class Streams:
    """Requests that compute batches side by side, each in a stream with its share of the cores."""

    def __init__(self, file: Path, count: int) -> None:
        core = openvino.Core()
        options = {
            "NUM_STREAMS": count,
            "INFERENCE_NUM_THREADS": _CORES,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(core.read_model(file), "CPU", options)
        self.count = count
        self._free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(count):
            self._free.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(count)

    def run(self, batches: Sequence[Inputs]) -> list[Vectors]:
        if len(batches) == 1:
            return [self._run(batches[0])]
        return list(self._pool.map(self._run, batches))

    def _run(self, batch: Inputs) -> Vectors:
        request = self._free.get()
        try:
            request.infer(batch, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._free.put(request)


class _Way:
    def __init__(self, streams: Streams, most_texts: int, most_tokens: int) -> None:
        self.most_texts, self.most_tokens, self.run = most_texts, most_tokens, streams.run
        size = f"{most_texts} texts" if most_texts < _UNBOUNDED else f"{most_tokens} tokens"
        self.name = f"{streams.count} streams, {size} a batch"


def load(model: ModelFiles) -> Encode:
    file = Path(model.onnx) / "model.onnx"
    many, one = Streams(file, _CORES), Streams(file, 1)
    ways = [
        _Way(many, _UNBOUNDED, 512),
        _Way(many, _UNBOUNDED, 1024),
        _Way(many, _UNBOUNDED, 256),
        _Way(one, 32, _UNBOUNDED),
    ]
    return BestOf(model, ways)
