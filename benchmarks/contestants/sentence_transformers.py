"""Run sentence-transformers on torch, in float32; it sorts texts by length and pads each batch itself."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = False
_DEVICES = {"cpu": "cpu", "gpu": "mps"}  # by the names that MLX gives them


def load(model: ModelFiles) -> Encode:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = SentenceTransformer(model.directory, device=_DEVICES[model.device], model_kwargs={"dtype": "float32"})

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        return network.encode(
            texts, batch_size=32, prompt=prompt.text if prompt else None, show_progress_bar=False, convert_to_numpy=True
        )

    return encode
