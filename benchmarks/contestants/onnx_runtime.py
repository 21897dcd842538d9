"""Run ONNX Runtime by itself, on the graph that `onnx_export` wrote, in the fastest of a few ways."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.contestants import Encode, ModelFiles
from benchmarks.contestants.sorted_batches import BestOf, Inputs, Vectors, Workers, ways

THREAD_SAFE = True
_CORES = int(os.environ["OMP_NUM_THREADS"])


class Sessions(Workers[onnxruntime.InferenceSession]):
    """Sessions that compute batches side by side."""

    def __init__(self, file: Path, count: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        super().__init__(
            f"{count} x {threads} threads",
            [
                onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
                for _ in range(count)
            ],
        )

    def compute(self, worker: onnxruntime.InferenceSession, batch: Inputs) -> Vectors:
        (vectors,) = worker.run(None, batch)
        return np.asarray(vectors, np.float32)


def load(model: ModelFiles) -> Encode:
    folder = Path(model.onnx)
    fused = folder / "fused.onnx"
    file = fused if fused.exists() else folder / "model.onnx"
    return BestOf(model, ways(Sessions(file, _CORES, 1), Sessions(file, 1, _CORES)))
