"""Vectors of a GPU beside the reference's, in processes of their own; on a machine without one, the CPU's alone."""

import json

import pytest

from tests.support import run_python

# Prints, for each model and precision, the largest difference from the reference, the smallest cosine to it, and the
# largest difference of texts that are embedded alone.
PROGRAM = """
import json, sys
import numpy as np
from akidb_mlx import EmbeddingService, Settings
from tests.support import GOLDENS, TEXTS, golden

device, precision, *names = sys.argv[1:]
sample = [i for i, text in enumerate(TEXTS) if len(text) < 1000]
found = {}
for name in names:
    with EmbeddingService(str(GOLDENS / name), device=device, settings=Settings(precision=precision)) as one:
        texts, expected = [TEXTS[i] for i in sample], golden(name)["none"][sample]
        vectors = one.embed_array(texts)
        alone = np.concatenate([one.embed_array([text]) for text in texts[:10]])
        found[name] = {
            "info": one.get_model_info()["device"],
            "difference": float(np.abs(vectors - expected).max()),
            "cosine": float((vectors * expected).sum(axis=1).min()),
            "alone": float(np.abs(vectors[:10] - alone).max()),
        }
print(json.dumps(found))
"""
FLOAT32 = ("tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-qwen3", "tiny-gemma3")
QUANTIZED = ("tiny-qwen3-4bit", "tiny-gemma3-4bit")


@pytest.fixture(params=["cpu", "gpu"])
def device(request):
    import mlx.core as mx

    if request.param == "gpu" and not mx.is_available(mx.gpu):
        pytest.skip("this machine has no GPU that MLX can use")
    return request.param


def measure(device, precision, *names):
    done = run_python(PROGRAM, 300, device, precision, *names)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["info"] for one in found.values()} == {device}
    return found


@pytest.mark.slow
def test_float32_agrees_with_the_reference_in_any_batch(device):
    """On a GPU without TF32: with it, neither holds (see test_mac.py)."""
    found = measure(device, "float32", *FLOAT32)
    assert all(one["difference"] <= 2e-5 and one["alone"] <= 1e-5 for one in found.values()), found


@pytest.mark.slow
def test_quantised_weights_stay_close_to_the_reference(device):
    found = measure(device, "auto", *QUANTIZED)
    assert all(one["cosine"] >= 0.995 for one in found.values()), found
