"""Measure a model in quantised files for ONNX Runtime and llama.cpp, for the table in docs/backends.md.

python -m benchmarks.quantized_files DIRECTORY [--gguf FILE] [--prompt TEXT] [--json]

DIRECTORY holds the original weights. FILE is the same model in float32; that of a BERT is written if none is given.
TEXT is put before each sentence. Vectors are compared with those of the original weights in float32 by MLX: their
cosine on the first 200 sentences of the STS benchmark (English test split), and Spearman's correlation on its first 500
pairs. llama.cpp runs in the environment that `make test-llama-cpp` makes, and is left out where that is absent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService
from akidb_mlx.cli.commands import create_app
from benchmarks import environments
from benchmarks.gguf_vectors import TYPES, embed
from benchmarks.quantization import cosines
from tests.support import sts_spearman

_LLAMA_CPP = environments.ROOT / ".bench" / "llama.cpp" / "bin" / "python"
# Products and tables. The tool takes ONNX's attention for ONNX Runtime's own of that name.
_PACKED = ["MatMul", "Gather"]
# What is not known of the type of outputs of ONNX Runtime's own operators: float32, by ONNX's number.
_TYPES = {"DefaultTensorType": 1}
# The row of a file: its kind, its size, and the vectors that it gives.
Row = tuple[str, int, np.ndarray]


def onnx_rows(directory: Path, folder: Path, prompt: str) -> Iterator[Row]:
    """Yield the exported file, and the same with weights of 8 bits, as ONNX Runtime's own tool makes them."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = folder / "onnx-model"
    done = CliRunner().invoke(create_app(), ["export", str(directory), "-o", str(model)])
    if done.exit_code:
        raise SystemExit(done.output)
    plain = model / "onnx" / "model.onnx"
    for kind, options in {
        "ONNX, float32": None,
        "ONNX, int8": {},
        "ONNX, int8, a scale for each column": {"per_channel": True},
    }.items():
        file = plain
        if options is not None:
            file = plain.with_name("model_int8.onnx")
            quantize_dynamic(
                plain, file, op_types_to_quantize=_PACKED, weight_type=QuantType.QInt8, extra_options=_TYPES, **options
            )
        with EmbeddingService(str(model), device="cpu", backend="onnx", onnx_file=file.name) as service:
            yield kind, _bytes(file.parent.glob(f"{file.name}*")), embed(service, prompt)  # with its second file


def gguf_rows(file: Path, folder: Path, prompt: str) -> Iterator[Row]:
    """Yield a GGUF file in float32, and the same in each type that llama.cpp's own tool is asked for."""
    for kind in TYPES:
        vectors = folder / "vectors.npy"
        size = _run("benchmarks.gguf_vectors", str(file), kind, str(vectors), prompt)
        yield f"GGUF, {kind}", int(size), np.load(vectors)


def _run(module: str, *arguments: str) -> str:
    """Run a module in llama.cpp's environment, and return the last line that it writes."""
    done = subprocess.run(
        [_LLAMA_CPP, "-m", module, *arguments],
        cwd=environments.ROOT,
        env=environments.process_variables(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip().rpartition("\n")[2]


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def measure(directory: Path, gguf: Path | None, prompt: str) -> Iterator[dict[str, str | float]]:
    """Yield the figures of each file."""
    with EmbeddingService(str(directory), device="cpu", backend="mlx") as service:
        original = embed(service, prompt)
    size = _bytes(directory.rglob("*.safetensors"))
    yield {"file": "original", "bytes": size, "mean": 1.0, "worst": 1.0, "spearman": sts_spearman(original)}
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        folder = Path(name)
        rows = [onnx_rows(directory, folder, prompt)]
        if _LLAMA_CPP.exists():
            if gguf is None:
                gguf = folder / "model.gguf"
                _run("benchmarks.bert_gguf", str(directory), str(gguf))
            rows.append(gguf_rows(gguf, folder, prompt))
        for some in rows:
            for kind, size, vectors in some:
                each = cosines(vectors, original)
                yield {
                    "file": kind,
                    "bytes": size,
                    "mean": float(each.mean()),
                    "worst": float(each.min()),
                    "spearman": sts_spearman(vectors),
                }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantized_files")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    for row in measure(given.directory, given.gguf, given.prompt):
        rows.append(row)
        print(row["file"], file=sys.stderr, flush=True)
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("file", "MB", "mean cosine", "worst cosine", "Spearman")
    for row in rows:
        mean, worst, spearman = (f"{row[name]:.5f}" for name in ("mean", "worst", "spearman"))
        table.add_row(str(row["file"]), f"{float(row['bytes']) / 1e6:.1f}", mean, worst, spearman)
    Console().print(table)


if __name__ == "__main__":
    main()
