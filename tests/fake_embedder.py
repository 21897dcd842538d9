"""An embedder without a model, whose vector encodes the text."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np
from typing_extensions import Unpack

from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import ServiceClosedError
from akidb_mlx.options import EmbedOptions
from akidb_mlx.quantized import quantize
from akidb_mlx.reports import Health, ModelInfo, ServiceMetrics
from akidb_mlx.texts import list_texts
from akidb_mlx.vectors import EmbeddingBatch

DIMENSION = 16


def encode(text: str, dimension: int = DIMENSION) -> np.ndarray:
    """Return a text's vector: how often each character occurs, by its code point modulo the dimension; unit length."""
    counts = np.bincount([ord(character) % dimension for character in text] or [0], minlength=dimension)
    return (counts / np.linalg.norm(counts)).astype(np.float32)


class FakeEmbedder(Embedder):
    """Answers at once, on the caller's thread, while `open` is set; holds calls and `close(drain=True)` back otherwise.

    `freed` is set at the end of `close`.
    """

    def __init__(self, name: str = "fake", weight_bytes: int = 100) -> None:
        self.name, self.weight_bytes = name, weight_bytes
        self.status = "ready"
        self.open = threading.Event()
        self.open.set()
        self.freed = threading.Event()
        self.calls: list[list[str]] = []

    def submit(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        if self.status != "ready":
            raise ServiceClosedError(f"{self.name} is {self.status}")
        call = self.parse_options(options)
        given = list_texts(texts)
        self.calls.append(given)
        rows = [encode(text, call.dimensions) for text in given]
        future: Future[EmbeddingBatch] = Future()
        vectors = np.stack(rows) if rows else np.empty((0, call.dimensions), np.float32)
        vectors = quantize(vectors, call.output_dtype, call.ranges)
        self.open.wait()
        future.set_result(
            EmbeddingBatch(vectors, [len(text) for text in given], [False] * len(given), self.name, call.dimensions)
        )
        return future

    def get_model_info(self) -> ModelInfo:
        return {
            "model_name": self.name,
            "dimension": DIMENSION,
            "native_dimension": DIMENSION,
            "max_tokens": 1 << 20,
            "backend": "fake",
            "device": "cpu",
            "allow_tf32": False,
            "precision": "float32",
            "quantization": None,
            "pooling": "mean",
            "pooling_source": "the test",
            "default_prompt": None,
            "prompts": [],
            "matryoshka": True,
            "fidelity": None,
            "architecture": "fake",
            "revision": None,
            "path": "",
            "weight_bytes": self.weight_bytes,
            "memory": {},
            "status": self.status,
        }

    def get_metrics(self) -> ServiceMetrics:
        raise NotImplementedError

    def health_check(self) -> Health:
        return {"status": "ok" if self.status == "ready" else "failed", "reason": self.status, "engine": self.status}

    def close(self, drain: bool = False) -> None:
        self.status = "closed"
        if drain:
            self.open.wait()
        self.freed.set()
