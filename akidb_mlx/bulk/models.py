"""The model of a job: its identity, and the ranges of its int8 vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from akidb_mlx.bulk.chunks import read_chunks
from akidb_mlx.bulk.options import BulkOptions
from akidb_mlx.bulk.shards import Shard
from akidb_mlx.errors import AkidbMlxError, InvalidInputError
from akidb_mlx.options import EmbedOptions
from akidb_mlx.quantized import Ranges, calibration_ranges
from akidb_mlx.service import EmbeddingService

# The facts of a model that decide its vectors to more than the last bits.
_FACTS = ("architecture", "native_dimension", "pooling", "precision", "quantization", "backend", "revision")
_SUFFIXES = (".json", ".safetensors", ".txt", ".model")
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
# The shards that texts are taken of for the ranges, and the texts of each.
_SAMPLED_SHARDS, _SAMPLED_TEXTS = 16, 256


def identify(service: EmbeddingService) -> dict[str, Any]:
    """Return what a model is known again by: its facts, and a hash of samples of its files."""
    info = service.get_model_info()
    facts = {name: info[name] for name in _FACTS}  # type: ignore[literal-required]
    folder = Path(info["path"])
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        kinds = (*_SUFFIXES, ".onnx") if info["backend"] == "onnx" else _SUFFIXES
        if path.suffix in kinds and path.is_file() and not any(part.startswith(".") for part in name.parts):
            _add_samples(digest, path, name.as_posix())
    return {"name": info["model_name"], **facts, "device": info["device"], "files_sha256": digest.hexdigest()}


def call_options(options: BulkOptions, ranges: Ranges | None) -> EmbedOptions:
    """Return the options of the calls that embed the rows."""
    return {
        "input_type": options.input_type,
        "dimensions": options.dimensions,
        "on_overflow": options.on_overflow,
        "output_dtype": options.dtype,
        "ranges": ranges,
    }


def sample_texts(shards: Sequence[Shard], options: BulkOptions, schema: pa.Schema) -> list[str]:
    """Return texts from the beginnings of shards that are spread over the job, always the same ones."""
    step = max(1, len(shards) // _SAMPLED_SHARDS)
    texts: list[str] = []
    for shard in shards[::step][:_SAMPLED_SHARDS]:
        for chunk in islice(read_chunks(shard, options, schema), 1):
            texts += chunk.texts[:_SAMPLED_TEXTS]
    return texts


def choose_ranges(service: EmbeddingService, texts: list[str], options: BulkOptions) -> Ranges:
    """Return the ranges of int8 vectors, from a sample.

    Raises:
        InvalidInputError: too few texts of the sample can be embedded.
    """
    plain: EmbedOptions = {**call_options(options, None), "output_dtype": "float32"}
    while True:
        try:
            vectors = service.submit_isolated(texts, **plain).result().vectors
        except AkidbMlxError as error:
            if error.index is None:
                raise
            texts = texts[: error.index] + texts[error.index + 1 :]  # its row is rejected when its turn comes
            continue
        if len(vectors) < 2:
            raise InvalidInputError(f"int8 needs two texts at least to take its ranges from, found {len(vectors)}")
        return calibration_ranges(vectors)


def parse_ranges(values: Any) -> Ranges | None:
    """Return the ranges that a manifest holds."""
    return None if values is None else np.array(values, np.float32)


def _add_samples(digest: Any, path: Path, name: str) -> None:
    size = path.stat().st_size
    digest.update(f"{name}\0{size}\0".encode())
    last = max(size - _SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for place in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
            file.seek(place)
            digest.update(file.read(_SAMPLE_BYTES))
