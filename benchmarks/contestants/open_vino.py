"""Run OpenVINO in float32, on the graph that `onnx_export` wrote, in the fastest of a few ways."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino

from benchmarks.contestants import Encode, ModelFiles
from benchmarks.contestants.sorted_batches import BestOf, Inputs, Vectors, Workers, ways

THREAD_SAFE = True
_CORES = int(os.environ["OMP_NUM_THREADS"])


class Streams(Workers[openvino.InferRequest]):
    """Requests that compute batches side by side, each in a stream with its share of the cores."""

    def __init__(self, file: Path, count: int) -> None:
        core = openvino.Core()
        options = {
            "NUM_STREAMS": count,
            "INFERENCE_NUM_THREADS": _CORES,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(core.read_model(file), "CPU", options)
        super().__init__(f"{count} streams", [compiled.create_infer_request() for _ in range(count)])

    def compute(self, worker: openvino.InferRequest, batch: Inputs) -> Vectors:
        worker.infer(batch, share_inputs=True)
        return np.array(worker.get_output_tensor(0).data, np.float32)


def load(model: ModelFiles) -> Encode:
    file = Path(model.onnx) / "model.onnx"
    return BestOf(model, ways(Streams(file, _CORES), Streams(file, 1)))
