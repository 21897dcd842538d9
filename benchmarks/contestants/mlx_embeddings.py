"""mlx-embeddings as its README says: batches as they come, padded to their longest text."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform == "linux":
    # The wheel's own BLAS is 80 times slower; loaded first and globally, this is what MLX calls, as in akidb-mlx.
    ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)

import mlx.core as mx
from mlx_embeddings.utils import load as load_network

from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = False
_BATCH = 32


def load_model(model: ModelFiles) -> tuple[Any, Any]:
    """The network and the tokenizer, for the naive loop too."""
    mx.set_default_device(mx.Device(getattr(mx, model.device)))
    network, tokenizer = load_network(model.directory)
    return network, tokenizer


def load(model: ModelFiles) -> Encode:
    network, tokenizer = load_model(model)

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        prompted = [prompt.text + text for text in texts] if prompt else texts
        batches = []
        for start in range(0, len(prompted), _BATCH):
            inputs = tokenizer.batch_encode_plus(
                prompted[start : start + _BATCH],
                return_tensors="mlx",
                padding=True,
                truncation=True,
                max_length=model.max_tokens,
            )
            outputs = network(inputs["input_ids"], attention_mask=inputs["attention_mask"])
            batches.append(np.array(outputs.text_embeds))
        return np.concatenate(batches)

    return encode
