"""Measure quantisations of real weights, for the table in docs/quantization.md.

python -m benchmarks.quantization MODEL RESULTS [ROW ...]

MODEL is a folder of original weights, RESULTS a JSON file to which each row is added as soon as it is measured. Rows
that are there already are left as they are. Cosines are those of the first 200 sentences of the STS benchmark,
Spearman's correlation that of its first 500 pairs (English test split), with the prompt STS where the model has it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from akidb_mlx import EmbeddingService
from akidb_mlx.fidelity.texts import default_texts
from akidb_mlx.quantization import quantize_model
from tests.support import sts_pairs, sts_spearman

_COSINE_PAIRS, _SPEARMAN_PAIRS = 100, 500
# The options of each row, as they are on the command line; "texts" stands for those of the package.
ROWS: dict[str, dict[str, Any]] = {
    "4-bit, group 32, calibrated": {"bits": 4, "group_size": 32, "texts": True},
    "searched, at most 5 bits": {"bits_per_weight": 5.0},
    "4-bit, group 64, calibrated": {"bits": 4, "texts": True},
    "4-bit, group 64": {"bits": 4},
    "8-bit, group 64": {"bits": 8},
    "6-bit, group 64": {"bits": 6},
    "mxfp4": {"mode": "mxfp4"},
    "4-bit, group 32": {"bits": 4, "group_size": 32},
    "mixed-4-6": {"recipe": "mixed-4-6"},
    "mxfp8": {"mode": "mxfp8"},
    "5-bit, group 64": {"bits": 5},
    "nvfp4": {"mode": "nvfp4"},
    "4-bit, group 128": {"bits": 4, "group_size": 128},
    "3-bit, group 64, calibrated": {"bits": 3, "texts": True},
}


def embed(folder: Path) -> np.ndarray:
    """Return the vectors of all first sentences, then of all second ones, in float32 on the CPU."""
    first, second, _ = sts_pairs()
    with EmbeddingService(str(folder), device="cpu", backend="mlx") as one:
        prompt = "STS" if "STS" in one.get_model_info()["prompts"] else None
        return one.embed_array(first[:_SPEARMAN_PAIRS] + second[:_SPEARMAN_PAIRS], input_type=prompt)


def cosines(vectors: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Return the cosines of the sentences of the first pairs."""
    chosen = np.r_[:_COSINE_PAIRS, _SPEARMAN_PAIRS : _SPEARMAN_PAIRS + _COSINE_PAIRS]
    return (vectors[chosen] * original[chosen]).sum(axis=1)


def measure(model: Path, options: dict[str, Any], original: np.ndarray) -> dict[str, Any]:
    """Quantise a model, and return the figures of a row."""
    given = dict(options)
    if given.pop("texts", False):
        given["texts"] = default_texts().texts
    if bits := given.pop("bits_per_weight", None):
        stored = sum(file.stat().st_size for file in model.rglob("*.safetensors"))
        given["target_size"] = int(stored / 4 * bits / 8)  # the original is in float32
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        began = time.monotonic()
        report = quantize_model(model, Path(folder) / "quantised", card=False, **given)
        seconds = time.monotonic() - began
        found = embed(report.directory)
        shutil.rmtree(report.directory)
    each = cosines(found, original)
    return {
        "bytes": report.weight_bytes,
        "bits_per_weight": report.bits_per_weight,
        "packings": report.packings,
        "mean": float(each.mean()),
        "worst": float(each.min()),
        "spearman": sts_spearman(found),
        "seconds": seconds,
    }


def main(model: Path, results: Path, wanted: list[str]) -> None:
    """Measure the rows that are not in the file of results."""
    rows = json.loads(results.read_text()) if results.is_file() else {}
    original = embed(model)
    rows["original"] = {
        "bytes": sum(file.stat().st_size for file in model.rglob("*.safetensors")),
        "spearman": sts_spearman(original),
    }
    for name in wanted or ROWS:
        if name not in rows:
            rows[name] = measure(model, ROWS[name], original)
        results.write_text(json.dumps(rows, indent=1))
        print(name, json.dumps(rows[name]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
