"""Behaviour on a Mac, played on any machine: the platform is forced, and stand-ins take the place of its parts."""

import os
import sys

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import cpu_runtime, macos, mlx_import
from tests.stand_ins import WITHOUT_MLX, become_a_mac
from tests.support import GOLDENS, TEXTS, golden, run_python

TINY = str(GOLDENS / "tiny-bert")


def test_a_test_that_takes_the_default_device_fails(default_devices_taken):
    from akidb_mlx.runtime.device import find_device

    assert os.environ["AKIDB_DEVICE"] == "cpu"
    with pytest.raises(AssertionError, match="took the default device"):
        find_device("auto")
    assert default_devices_taken == ["MainThread"]
    default_devices_taken.clear()


# The environment of MLX


@pytest.mark.parametrize("platform", sorted({"darwin", sys.platform}))
@pytest.mark.parametrize(
    ("before", "allowed", "after"), [(None, False, "0"), (None, True, "1"), ("1", False, "1"), ("0", True, "0")]
)
def test_mlx_finds_its_variables_set(monkeypatch, caplog, platform, before, allowed, after):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("MLX_BFS_MAX_WIDTH", raising=False)
    monkeypatch.delenv("MLX_ENABLE_TF32", raising=False)
    if before is not None:
        monkeypatch.setenv("MLX_ENABLE_TF32", before)
    mlx_import.prepare(allow_tf32=allowed)
    assert os.environ["MLX_ENABLE_TF32"] == after
    assert int(os.environ["MLX_BFS_MAX_WIDTH"]) == 1000
    assert ("allow_tf32 has no effect" in caplog.text) == (allowed and after == "0")


def test_the_setting_reaches_mlx_before_it_is_imported():
    program = f"""
import os, sys
assert "mlx.core" not in sys.modules
from akidb_mlx import EmbeddingService
with EmbeddingService({TINY!r}, device="cpu") as one:
    print(os.environ["MLX_ENABLE_TF32"], one.get_model_info()["allow_tf32"])
"""
    for environment, printed in (({}, "0"), ({"AKIDB_ALLOW_TF32": "1"}, "1"), ({"MLX_ENABLE_TF32": "1"}, "1")):
        done = run_python(
            f"import os; os.environ.pop('MLX_ENABLE_TF32', None); os.environ.update({environment})" + program
        )
        assert done.stdout == f"{printed} False\n", done.stderr


def test_a_language_model_obeys_the_setting_too(chat_model, monkeypatch):
    from akidb_mlx import Summarizer
    from akidb_mlx.summarization import generator

    asked = []
    monkeypatch.setattr(generator.mlx_import, "prepare", asked.append)
    Summarizer(chat_model, device="cpu", settings=Settings(allow_tf32=True)).close()
    Summarizer(chat_model, device="cpu").close()
    assert asked == [True, False]


# TF32


def rounded(x):
    """The float32 values with 10 bits of their fraction, as TF32 has them."""
    import mlx.core as mx

    bits = (x.astype(mx.float32).view(mx.uint32) + 0x1000) & mx.array(0xFFFFE000, mx.uint32)
    return bits.view(mx.float32)


def rounding_matmul(a, b, **_):
    return rounded(a) @ rounded(b)


def test_a_device_that_rounds_is_found_by_trying(monkeypatch):
    import mlx.core as mx

    from akidb_mlx.runtime import device

    cpu = mx.Device(mx.cpu)
    assert not device._product_is_rounded(cpu)
    monkeypatch.setattr(mx, "matmul", rounding_matmul)
    assert device._product_is_rounded(cpu)
    assert not device.rounds_to_tf32(cpu)  # which no CPU does, and so is not tried
    tried = []
    monkeypatch.setattr(device, "_product_is_rounded", lambda one: tried.append(one) or True)
    assert device.rounds_to_tf32(mx.Device(mx.gpu))
    assert tried == [mx.Device(mx.gpu)]


def test_the_reports_say_what_is_in_force(monkeypatch):
    from akidb_mlx.runtime import device

    monkeypatch.setattr(device, "rounds_to_tf32", lambda _: True)
    assert device.describe("cpu")["allow_tf32"] is True
    with EmbeddingService(TINY, device="cpu") as one:
        assert one.get_model_info()["allow_tf32"] is True


def test_tf32_would_cost_exactness(minilm, monkeypatch):
    """With rounded factors MiniLM misses its bound of 1e-5 by far, and so do texts in other batches: so it is off."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx import plan as plans
    from akidb_mlx.backends.mlx.layers import Linear

    def linear(self, x):
        return rounding_matmul(x, self._weight) + self._bias

    def attention(queries, keys, values, scale, mask):
        scores = rounding_matmul(queries * scale, keys.swapaxes(-1, -2))
        weights = mx.softmax(scores if mask is None else scores + mask, axis=-1)
        return rounding_matmul(weights, values).swapaxes(1, 2).flatten(2)

    texts = [text for text in TEXTS if len(text) < 300]
    expected = golden("all-MiniLM-L6-v2")["none"][[TEXTS.index(text) for text in texts]]
    assert np.abs(minilm.embed_array(texts) - expected).max() <= 1e-5
    monkeypatch.setattr(Linear, "__call__", linear)
    monkeypatch.setattr(plans, "vectorised_attention", attention)
    with pytest.raises(ModelLoadError, match="does not compute its known answers"):
        EmbeddingService("minilm-l6-v2", device="cpu")
    monkeypatch.setenv("AKIDB_KNOWN_ANSWERS", "false")
    with EmbeddingService("minilm-l6-v2", device="cpu") as one:
        vectors = one.embed_array(texts)
        alone = np.concatenate([one.embed_array([text]) for text in texts[:10]])
    assert np.abs(vectors - expected).max() == pytest.approx(1.9e-4, rel=0.2)
    assert np.abs(vectors[:10] - alone).max() > 2e-5


# A Mac without MLX, or without Metal

INTEL = "macOS 15.1 x86_64 under Rosetta: it needs a native arm64 Python on macOS 14 or newer"
NO_METAL = "[metal::load_device] No Metal device available."


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(
    ("kind", "message", "machine", "said"),
    [
        ("ModuleNotFoundError", "No module named 'mlx'", "x86_64", INTEL),
        ("ImportError", NO_METAL, "arm64", f"MLX cannot start on this machine, macOS 15.1 arm64: {NO_METAL}"),
        ("RuntimeError", NO_METAL, "arm64", "also with device=cpu, whose arrays are allocated through Metal"),
    ],
    ids=["no MLX", "no Metal", "no Metal, found later"],
)
def test_a_machine_that_cannot_compute_says_why(kind, message, machine, said, device):
    command = ("embed", "-m", TINY, "hello")
    done = run_python(WITHOUT_MLX, 60, kind, message, machine, *command, AKIDB_DEVICE=device)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_doctor_reports_a_machine_that_cannot_compute():
    done = run_python(
        WITHOUT_MLX, 60, "ModuleNotFoundError", "No module named 'mlx'", "x86_64", "doctor", COLUMNS="300"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("akidb-mlx: MLX is not installed")
    assert INTEL in done.stderr
    assert done.stderr.count("\n") == 1
    assert "none: MLX is not installed" in done.stdout
    assert "self-test" in done.stdout


def test_a_summary_model_is_not_fetched_for_a_machine_that_cannot_compute(monkeypatch):
    from akidb_mlx import Summarizer
    from akidb_mlx.summarization import opening

    def missing():
        raise ConfigurationError("MLX is not installed")

    def touch(*_):
        raise AssertionError("a file was looked for")

    for module in ("akidb_mlx.summarization.opening", "akidb_mlx.loading"):
        monkeypatch.setattr(f"{module}.acquire_directory", touch)
    monkeypatch.setattr(opening, "check_installed", missing)
    monkeypatch.setattr(mlx_import, "check_installed", missing)
    with pytest.raises(ConfigurationError, match="MLX is not installed"):
        Summarizer("org/name")
    with pytest.raises(ConfigurationError, match="MLX is not installed"):
        EmbeddingService("org/name", backend="mlx")  # without MLX, auto looks for an ONNX file


def test_arrays_that_cannot_be_allocated_are_explained(monkeypatch):
    """MLX imports without a Metal device, and fails at the first array."""
    import mlx.core as mx

    def no_metal(_):
        raise RuntimeError(NO_METAL)

    monkeypatch.setattr(mx, "array", no_metal)
    become_a_mac(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"needs macOS 14 or newer and a Metal device.*device=cpu"):
        mlx_import.prepare()


# The numbers of a Mac


def test_only_performance_cores_count(monkeypatch):
    become_a_mac(monkeypatch, hw__perflevel0__logicalcpu=(4, 4), hw__perflevel1__logicalcpu=(6, 4))
    assert cpu_runtime.cores() == 4


def test_a_mac_that_does_not_tell_its_cores(monkeypatch):
    become_a_mac(monkeypatch)
    assert cpu_runtime.cores() == os.cpu_count()


@pytest.mark.parametrize("width", [4, 8])
def test_the_memory_that_macos_could_give(monkeypatch, width):
    counts = {"free": 1000, "purgeable": 20, "pageable_external": 300}
    numbers = {f"vm__page_{kind}_count": (count, width) for kind, count in counts.items()}
    become_a_mac(monkeypatch, **numbers, vm__page_speculative_count=(7, width))
    assert cpu_runtime.available_memory() == 1320 * os.sysconf("SC_PAGE_SIZE")
    become_a_mac(monkeypatch, vm__page_free_count=(1000, width))  # too little to tell
    assert cpu_runtime.available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def test_other_systems_are_not_asked():
    if sys.platform != "darwin":
        assert macos.sysctl("hw.memsize") is None
