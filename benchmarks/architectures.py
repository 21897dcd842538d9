"""Measure every tiny model against the reference in each way that it can run: the table in docs/models.md.

python -m benchmarks.architectures [--markdown]

`tests/test_architectures.py` asserts the bounds, which the exit status tells too.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from benchmarks.quantize import quantize
from tests.support import GOLDENS, TEXTS, TINY, edit_json, golden

# The longest texts take too long in half precision on a CPU.
SAMPLE = [i for i, text in enumerate(TEXTS) if len(text) < 1000]
GROUP_SIZE, BITS = 32, 4
MAX_DIFFERENCE, MIN_COSINE, MIN_QUANTISED_COSINE = 2e-5, 0.995, 0.99
_HEADER = (
    "model_type",
    "tiny model",
    "float32: largest difference",
    "4-bit: largest difference",
    "half precision: smallest cosine",
    "4-bit in half precision: smallest cosine",
)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Fidelity:
    """The figures of one tiny model.

    Attributes:
        model_type: its architecture.
        name: its directory in tests/goldens.
        difference: largest difference of a value from the reference's, in float32, over all texts and prompts.
        quantised_difference: the same of 4-bit weights, from the vectors of the numbers that the 4 bits stand for.
        half_cosine: smallest cosine with the reference in half precision, by the native path, forced on the CPU.
        quantised_half_cosine: the same of 4-bit weights, with the vectors of the numbers that they stand for.
    """

    model_type: str
    name: str
    difference: float
    quantised_difference: float
    half_cosine: float
    quantised_half_cosine: float

    @property
    def sound(self) -> bool:
        """Return whether every figure keeps its bound."""
        differences = max(self.difference, self.quantised_difference)
        quantised = self.quantised_half_cosine >= MIN_QUANTISED_COSINE
        return differences <= MAX_DIFFERENCE and self.half_cosine >= MIN_COSINE and quantised


def embed(directory: Path, precision: str = "auto", prompt: str = "none", texts: list[str] | None = None) -> Vectors:
    """Embed the texts of the sample, or those given, on the CPU."""
    with EmbeddingService(str(directory), device="cpu", settings=Settings(precision=precision)) as service:
        chosen = [TEXTS[i] for i in SAMPLE] if texts is None else texts
        return service.embed_array(chosen, input_type=None if prompt == "none" else prompt)


def half_precision(name: str) -> str:
    """Return the half precision that a tiny model can run in."""
    overflows = read_checkpoint(GOLDENS / name).architecture.float16_overflows
    return "bfloat16" if overflows else "float16"


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosine of each vector of unit length with the other in its row."""
    return (a * b).sum(axis=1)


def make_quantised(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a 4-bit copy of a tiny model, and another with the numbers that the 4 bits stand for."""
    packed, plain = folder / "4bit", folder / "plain"
    quantize(GOLDENS / name, packed, bits=BITS, group_size=GROUP_SIZE)
    import mlx.core as mx  # only after a service has prepared the process for MLX

    shutil.copytree(packed, plain)
    stored = mx.load(str(packed / "model.safetensors"))
    numbers = {}
    for key, array in stored.items():
        layer = key.removesuffix(".weight")
        if f"{layer}.scales" in stored and key != layer:
            scales, biases = stored[f"{layer}.scales"], stored[f"{layer}.biases"]
            numbers[key] = mx.dequantize(array, scales, biases, GROUP_SIZE, BITS)
        elif not key.endswith((".scales", ".biases")):
            numbers[key] = array
    mx.save_safetensors(str(plain / "model.safetensors"), numbers, metadata={"format": "mlx"})
    edit_json(plain / "config.json", quantization=None)
    return packed, plain


def measure(name: str) -> Fidelity:
    """Measure a tiny model."""
    vectors = golden(name)
    precision = half_precision(name)
    difference = max(
        float(np.abs(embed(GOLDENS / name, prompt=prompt, texts=TEXTS) - expected).max())
        for prompt, expected in vectors.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        packed, plain = make_quantised(name, Path(folder))
        numbers = embed(plain)
        return Fidelity(
            model_type=json.loads((GOLDENS / name / "config.json").read_text(encoding="utf-8"))["model_type"],
            name=name,
            difference=difference,
            quantised_difference=float(np.abs(embed(packed) - numbers).max()),
            half_cosine=float(cosines(embed(GOLDENS / name, precision), vectors["none"][SAMPLE]).min()),
            quantised_half_cosine=float(cosines(embed(packed, precision), numbers).min()),
        )


def main() -> int:
    """Print the table; return the exit status."""
    console = Console(stderr=True)
    progress = track(TINY, description="tiny models", console=console, disable=not console.is_terminal)
    figures = sorted((measure(name) for name in progress), key=lambda one: (one.model_type, one.name))
    rows = [
        (
            one.model_type,
            one.name,
            f"{one.difference:.1e}",
            f"{one.quantised_difference:.1e}",
            f"{one.half_cosine:.5f}",
            f"{one.quantised_half_cosine:.4f}",
        )
        for one in figures
    ]
    if "--markdown" in sys.argv[1:]:
        for cells in (_HEADER, ["---"] * len(_HEADER), *([f"`{row[0]}`", f"`{row[1]}`", *row[2:]] for row in rows)):
            print(f"| {' | '.join(cells)} |")
    else:
        table = Table(*_HEADER)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    return 0 if all(one.sound for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
