"""Embed sentences of the STS benchmark by a GGUF file once it is quantised.

python -m benchmarks.gguf_vectors FILE TYPE VECTORS [PROMPT]

FILE is in float32. The vectors are saved as an array of NumPy's, and the size of the quantised file is written to
standard output. `benchmarks.quantized_files` runs it in llama.cpp's environment.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from akidb_mlx import EmbeddingService
from akidb_mlx.backends.llama_cpp.runtime import import_llama_cpp
from tests.support import sts_pairs

_PAIRS = 500
# Float32, and the types of llama.cpp's tool.
TYPES = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")


def embed(service: EmbeddingService, prompt: str) -> np.ndarray:
    """Return the vectors of the first sentences, then of the second ones, of the first 500 pairs."""
    first, second, _ = sts_pairs()
    return service.embed_array([prompt + text for text in first[:_PAIRS] + second[:_PAIRS]], input_type=None)


def quantize(file: Path, kind: str, output: Path) -> None:
    """Write a file in another type by llama.cpp's own function."""
    llama_cpp = import_llama_cpp()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(file).encode(), str(output).encode(), parameters):
        raise SystemExit(f"{file} cannot be quantised to {kind}")


def main(file: Path, kind: str, vectors: Path, prompt: str = "") -> None:
    """Quantise a file, embed by it, save the vectors and print its size."""
    with tempfile.TemporaryDirectory(dir=vectors.parent) as folder:
        used = file
        if kind != "F32":
            used = Path(folder) / "model.gguf"
            quantize(file, kind, used)
        with EmbeddingService(str(used), device="cpu") as service:
            np.save(vectors, embed(service, prompt))
        print(used.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
