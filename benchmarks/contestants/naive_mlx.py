"""Run a naive MLX loop: one text at a time, padded to 512 tokens, as the first AkiDB integration did.

The network is that of mlx-embeddings, so only the loop differs from that contestant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.contestants import Encode, ModelFiles, Prompt, mlx_embeddings

THREAD_SAFE = False
_PADDED_LENGTH = 512


def load(model: ModelFiles) -> Encode:
    network, tokenizer = mlx_embeddings.load_model(model)

    def encode(texts: list[str], prompt: Prompt | None) -> NDArray[np.float32]:
        vectors = []
        for text in texts:
            tokens = tokenizer.batch_encode_plus(
                [prompt.text + text if prompt else text],
                truncation=True,
                max_length=min(model.max_tokens, _PADDED_LENGTH),
            )
            inputs = tokenizer.pad(tokens, padding="max_length", max_length=_PADDED_LENGTH, return_tensors="mlx")
            outputs = network(inputs["input_ids"], attention_mask=inputs["attention_mask"])
            vectors.append(np.array(outputs.text_embeds))
        return np.concatenate(vectors)

    return encode
