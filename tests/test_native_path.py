"""The way a GPU runs (weights kept quantised, half precision, MLX's own kernels), forced on the CPU."""

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.errors import ConfigurationError
from tests.support import GOLDENS, TEXTS, golden, run_python

# All texts but the longest two, which take too long in half precision on a CPU.
SAMPLE = [i for i, text in enumerate(TEXTS) if len(text) < 1000]


@pytest.mark.parametrize(
    ("name", "precision", "prompt"),
    [
        ("tiny-bert", "float16", "none"),
        ("tiny-roberta", "bfloat16", "none"),
        ("tiny-qwen3", "float16", "query"),
        ("tiny-qwen3-4bit", "float16", "none"),
        ("tiny-qwen3-4bit", "bfloat16", "query"),
        ("tiny-gemma3", "bfloat16", "STS"),
        ("tiny-gemma3-4bit", "bfloat16", "none"),
        ("tiny-gemma3-4bit", "bfloat16", "STS"),
    ],
)
def test_half_precision_stays_close_to_the_reference(name, precision, prompt):
    with EmbeddingService(str(GOLDENS / name), device="cpu", settings=Settings(precision=precision)) as one:
        assert one.get_model_info()["precision"] == precision
        vectors = one.embed_array([TEXTS[i] for i in SAMPLE], input_type=None if prompt == "none" else prompt)
    expected = golden(name)[prompt][SAMPLE]
    assert (vectors * expected).sum(axis=1).min() >= 0.995
    assert np.abs(vectors - expected).max() > 1e-6  # it did not run in float32


@pytest.mark.parametrize("name", ["tiny-gemma3", "tiny-gemma3-4bit"])
def test_gemma_is_refused_in_float16(name):
    with pytest.raises(ConfigurationError, match="overflow"):
        EmbeddingService(str(GOLDENS / name), device="cpu", settings=Settings(precision="float16"))


@pytest.mark.parametrize(
    ("stored", "overflows", "architecture", "expected"),
    [
        ("float32", True, "applegpu_g16s", "float32"),
        ("float16", True, "applegpu_g16s", "bfloat16"),
        ("float16", True, "applegpu_g13g", "float32"),
        ("bfloat16", True, "applegpu_g14s", "float32"),
        ("bfloat16", False, "applegpu_g13g", "float32"),
        ("bfloat16", False, "applegpu_g14s", "float32"),
        ("bfloat16", False, "applegpu_g15d", "bfloat16"),
        ("float16", False, "applegpu_g13g", "float16"),
        ("float16", False, "sm_90", "float16"),
    ],
)
def test_the_precision_of_a_gpu(monkeypatch, stored, overflows, architecture, expected):
    import mlx.core as mx

    from akidb_mlx.backends.mlx import plan as plans

    monkeypatch.setattr(plans, "find_device", lambda _: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda _: {"architecture": architecture})
    plan = plans.execution_plan("auto", "auto", None, stored, overflows, 0)
    assert (plan.precision, plan.exact, plan.device_name) == (expected, False, "gpu")


def test_a_gpu_that_is_not_there_is_a_clear_error():
    import mlx.core as mx

    if mx.is_available(mx.gpu):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigurationError, match="device gpu: MLX finds none"):
        EmbeddingService(str(GOLDENS / "tiny-bert"), device="gpu")


@pytest.mark.default_device
def test_the_default_device_agrees_with_the_reference():
    """On a Mac this is Metal; in a process of its own, because MLX has one device for each."""
    done = run_python(f"""
from akidb_mlx import EmbeddingService
from tests.support import GOLDENS, TEXTS, golden
for name in ("tiny-bert", "tiny-qwen3-4bit", "tiny-gemma3-4bit"):
    with EmbeddingService(str(GOLDENS / name)) as one:
        cosine = (one.embed_array([TEXTS[i] for i in {SAMPLE}]) * golden(name)["none"][{SAMPLE}]).sum(axis=1)
    assert cosine.min() >= 0.995, (name, cosine)
print("all agree")
""")
    assert done.stdout == "all agree\n", done.stderr


def test_a_process_computes_on_one_device(monkeypatch):
    import mlx.core as mx

    from akidb_mlx.runtime import device

    monkeypatch.setattr(device, "_claims", [device.Claim(mx.Device(mx.gpu))])
    with pytest.raises(ConfigurationError, match="this process already computes on its gpu"):
        EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu")
