"""Run akidb-mlx in float32, as all contestants."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from akidb_mlx import EmbeddingService, Settings
from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = True


def load(model: ModelFiles) -> Encode:
    service = EmbeddingService(model.name, device=model.device, settings=Settings(precision="float32"))

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        return service.embed_array(texts, input_type=prompt.name if prompt else None)

    return encode
