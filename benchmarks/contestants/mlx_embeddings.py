"""Run mlx-embeddings as its README shows: batches in the order of the texts, each padded to its longest text."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform == "linux":
    # The wheel's own BLAS is 80 times slower. MLX calls this one when it is loaded first and globally, as in akidb-mlx.
    ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)

import mlx.core as mx
from mlx_embeddings.utils import load as load_network

from benchmarks.contestants import Encode, ModelFiles, Prompt

THREAD_SAFE = False
_BATCH_SIZE = 32


def load_model(model: ModelFiles) -> tuple[Any, Any]:
    """Load the network and the tokenizer, for the naive loop too."""
    mx.set_default_device(mx.Device(getattr(mx, model.device)))
    network, tokenizer = load_network(model.directory)
    return network, tokenizer


def load(model: ModelFiles) -> Encode:
    network, tokenizer = load_model(model)

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        prompted = [prompt.text + text for text in texts] if prompt else texts
        batches = []
        for start in range(0, len(prompted), _BATCH_SIZE):
            inputs = tokenizer.batch_encode_plus(
                prompted[start : start + _BATCH_SIZE],
                return_tensors="mlx",
                padding=True,
                truncation=True,
                max_length=model.max_tokens,
            )
            outputs = network(inputs["input_ids"], attention_mask=inputs["attention_mask"])
            batches.append(np.array(outputs.text_embeds))
        return np.concatenate(batches)

    return encode
