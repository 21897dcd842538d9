"""Every architecture with quantised weights, and by the way of a GPU forced on the CPU."""

from pathlib import Path

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from benchmarks.quantize import quantize
from tests.support import GOLDENS, TEXTS, TINY, edit_json, golden

# Their longest texts take too long in half precision on a CPU.
SAMPLE = [i for i, text in enumerate(TEXTS) if len(text) < 1000]


def embed(directory: Path, precision: str = "auto") -> np.ndarray:
    with EmbeddingService(str(directory), device="cpu", settings=Settings(precision=precision)) as service:
        return service.embed_array([TEXTS[i] for i in SAMPLE])


def half_precision(name: str) -> str:
    overflows = read_checkpoint(GOLDENS / name).architecture.float16_overflows
    return "bfloat16" if overflows else "float16"


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Return, for a tiny model, a 4-bit copy and another with the numbers that the 4 bits stand for."""

    def make(name: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(name)
        packed, plain = folder / "4bit", folder / "plain"
        quantize(GOLDENS / name, packed, bits=4, group_size=32)
        _dequantize(packed, plain)
        return packed, plain

    return make


def _dequantize(source: Path, destination: Path) -> None:
    import shutil

    import mlx.core as mx

    shutil.copytree(source, destination)
    stored = mx.load(str(source / "model.safetensors"))
    plain = {
        name: mx.dequantize(array, stored[f"{layer}.scales"], stored[f"{layer}.biases"], 32, 4)
        if f"{(layer := name.removesuffix('.weight'))}.scales" in stored
        else array
        for name, array in stored.items()
        if not name.endswith((".scales", ".biases"))
    }
    mx.save_safetensors(str(destination / "model.safetensors"), plain, metadata={"format": "mlx"})
    edit_json(destination / "config.json", quantization=None)


@pytest.mark.parametrize("name", TINY)
def test_half_precision_stays_close_to_the_reference(name):
    precision = half_precision(name)
    vectors, expected = embed(GOLDENS / name, precision), golden(name)["none"][SAMPLE]
    assert cosines(vectors, expected).min() >= 0.995
    assert np.abs(vectors - expected).max() > 1e-6  # it did not run in float32


@pytest.mark.parametrize("name", TINY)
def test_quantised_weights_give_the_vectors_of_the_numbers_they_stand_for(name, quantized):
    packed, plain = quantized(name)
    expected = embed(plain)
    assert np.abs(embed(packed) - expected).max() <= 2e-5
    assert cosines(embed(packed, half_precision(name)), expected).min() >= 0.99
