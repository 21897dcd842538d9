"""Run model2vec as its README shows, with vectors of unit length."""

from __future__ import annotations

import numpy as np
from model2vec import StaticModel
from numpy.typing import NDArray

from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = False


def load(model: ModelFiles) -> Encode:
    network = StaticModel.from_pretrained(model.directory)

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        return network.encode([prompt.text + text for text in texts] if prompt else texts, normalize=True)

    return encode
