"""Run akidb-mlx in float32 on MLX, also where another backend is the default."""

from __future__ import annotations

from benchmarks.contestants import Encode, ModelFiles
from benchmarks.contestants.akidb import Service

THREAD_SAFE = True


def load(model: ModelFiles) -> Encode:
    return Service(model.name, model.device, "mlx")
