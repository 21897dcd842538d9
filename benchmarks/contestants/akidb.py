"""Run akidb-mlx in float32, as all contestants, with the backend that it chooses itself.

That is ONNX Runtime on a plain CPU, since the model was exported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from akidb_mlx import EmbeddingService, Settings
from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = True


class Service:
    """A service, and the backend that it has."""

    def __init__(self, model: str, device: str, backend: str) -> None:
        self._service = EmbeddingService(model, device=device, backend=backend, settings=Settings(precision="float32"))

    def __call__(self, texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        return self._service.embed_array(texts, input_type=prompt.name if prompt else None)

    @property
    def note(self) -> str:
        return f"backend {self._service.get_model_info()['backend']}"


def load(model: ModelFiles) -> Encode:
    return Service(model.exported or model.name, model.device, "auto")
