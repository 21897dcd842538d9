"""Quantise a checkpoint with MLX in the way that community conversions are made.

python -m benchmarks.quantize SOURCE DESTINATION
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def quantize(source: Path, destination: Path, bits: int = 4, group_size: int = 64) -> None:
    """Write a copy of a model with quantised linear layers and word embeddings, and unchanged Dense folders."""
    import mlx.core as mx  # only after a service has prepared the process for MLX

    shutil.copytree(source, destination, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer.model"))
    for file in source.rglob("*.safetensors"):
        if file.parent != source:
            shutil.copy(file, destination / file.relative_to(source))
    packed = {}
    for name, array in mx.load(str(source / "model.safetensors")).items():
        if array.ndim != 2 or array.shape[1] % group_size:
            packed[name] = array
            continue
        layer = name.removesuffix(".weight")
        packed[name], packed[f"{layer}.scales"], packed[f"{layer}.biases"] = mx.quantize(array, group_size, bits)
    mx.save_safetensors(str(destination / "model.safetensors"), packed, metadata={"format": "mlx"})
    config = json.loads((source / "config.json").read_text())
    config["quantization"] = {"bits": bits, "group_size": group_size}
    (destination / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    quantize(Path(sys.argv[1]), Path(sys.argv[2]))
