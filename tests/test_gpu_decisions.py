"""Decisions for a GPU, as data: attention, the trial of a model, memory, and the device of a process."""

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from tests.support import GOLDENS, copy_model, edit_tensors, wait_until

TINY = GOLDENS / "tiny-bert"
GIGABYTE = 1 << 30


def gpu_plan(dtype="float16"):
    import mlx.core as mx

    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    return ExecutionPlan(mx.Device(mx.gpu), getattr(mx, dtype), exact=False, token_budget=8192, lanes=1)


@pytest.fixture
def mac(monkeypatch):
    """Sets the working set that Metal recommends, and what is in use of it."""
    import mlx.core as mx

    def have(working_set, active=0, cached=0):
        info = {} if working_set is None else {"max_recommended_working_set_size": working_set}
        monkeypatch.setattr(mx, "device_info", lambda _: info)
        monkeypatch.setattr(mx, "get_active_memory", lambda: active)
        monkeypatch.setattr(mx, "get_cache_memory", lambda: cached)

    return have


# Attention


@pytest.mark.parametrize(
    ("head_size", "whole"),
    [
        (32, False),  # MiniLM
        (64, True),  # BERT, RoBERTa
        (80, True),
        (128, True),  # Qwen3
        (256, False),  # Gemma
        (512, False),
    ],
)
def test_attention_is_cut_only_where_metal_would_hold_the_scores(monkeypatch, mac, head_size, whole):
    import mlx.core as mx

    from akidb_mlx.backends.mlx import plan as plans

    lengths = []

    def attention(queries, *_):
        lengths.append(queries.shape[2])
        return mx.zeros((queries.shape[0], queries.shape[2], queries.shape[1] * queries.shape[3]))

    monkeypatch.setattr(plans, "fused_attention", attention)
    monkeypatch.setattr(plans, "_MAX_SCORES", {"cpu": 1, "gpu": 4 * 100 * 1000})
    mac(16 * GIGABYTE)
    arrays = [mx.zeros((1, 4, 1000, head_size), mx.float16)] * 3
    result = gpu_plan().attention(*arrays, 1.0, None)
    assert result.shape == (1, 1000, 4 * head_size)
    assert lengths == ([1000] if whole else [100] * 10)


@pytest.mark.parametrize(
    ("working_set", "dtype", "scores"),
    [
        (None, "float32", 1 << 26),  # no Metal
        (5 * GIGABYTE, "float32", 5 * GIGABYTE // 16 // (2 * 4)),  # a Mac of 8 GB
        (5 * GIGABYTE, "float16", 1 << 26),
        (11 * GIGABYTE, "float32", 1 << 26),  # a Mac of 16 GB
    ],
)
def test_scores_take_a_small_share_of_the_working_set(mac, working_set, dtype, scores):
    mac(working_set)
    assert gpu_plan(dtype)._max_gpu_scores() == scores


# The trial of a model


def test_a_gpu_is_tried_on_a_padded_batch_and_a_cpu_on_one_token(monkeypatch):
    from akidb_mlx.backends.mlx.model import EmbeddingModel
    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    lengths = gpu_plan().trial_lengths
    assert len(set(lengths)) == len(lengths) == 2
    tried = []
    start = EmbeddingModel.start
    monkeypatch.setattr(EmbeddingModel, "start", lambda self, rows: tried.append(rows[0]) or start(self, rows))
    EmbeddingService(TINY, device="cpu").close()
    monkeypatch.setattr(ExecutionPlan, "trial_lengths", lengths)
    EmbeddingService(TINY, device="cpu").close()
    assert [rows.lengths.tolist() for rows in tried] == [[1], list(lengths)]
    assert tried[1].ids.shape == (2, max(lengths))


def test_a_trial_looks_at_every_text(monkeypatch, tmp_path):
    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    directory = copy_model("tiny-bert", tmp_path)

    def damage(tensors):
        name = next(name for name in tensors if name.endswith("position_embeddings.weight"))
        tensors[name] = tensors[name].copy()
        tensors[name][25] = np.nan  # which the shorter text does not reach
        return tensors

    edit_tensors(directory / "model.safetensors", damage)
    monkeypatch.setattr(ExecutionPlan, "trial_lengths", gpu_plan().trial_lengths)
    with pytest.raises(ModelLoadError, match="not finite"):
        EmbeddingService(directory, device="cpu")


# Memory


@pytest.mark.parametrize(
    ("working_set", "active", "system", "available"),
    [
        (10 * GIGABYTE, GIGABYTE, 20 * GIGABYTE, 9 * GIGABYTE),
        (10 * GIGABYTE, GIGABYTE, 2 * GIGABYTE, 2 * GIGABYTE),  # other programs have the rest
        (10 * GIGABYTE, 11 * GIGABYTE, 2 * GIGABYTE, 0),
        (None, GIGABYTE, 2 * GIGABYTE, 2 * GIGABYTE),  # a CPU
    ],
)
def test_available_memory_is_bounded_by_that_of_the_system(monkeypatch, mac, working_set, active, system, available):
    import mlx.core as mx

    from akidb_mlx.runtime import allocator

    mac(working_set, active)
    monkeypatch.setattr(allocator.cpu_runtime, "available_memory", lambda: system)
    assert allocator.available_memory(mx.Device(mx.gpu)) == available


@pytest.fixture
def limits(monkeypatch):
    """The wired limits that were set, the first of which is MLX's own."""
    import mlx.core as mx

    found = [7]

    def set_limit(limit):
        found.append(limit)
        return found[-2]

    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    return found


def test_memory_is_wired_for_as_long_as_it_is_needed(mac, limits):
    """Two answers overlap, and the first ends first."""
    import mlx.core as mx

    from akidb_mlx.runtime.allocator import wired

    gpu = mx.Device(mx.gpu)
    mac(1000, active=300, cached=50)
    first, second = wired(gpu, 100), wired(gpu, 200)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert limits[1:] == [450, 650, 550, 7]
    with pytest.raises(KeyError), wired(gpu, 5000):
        raise KeyError
    assert limits[5:] == [1000, 7]  # no more than Metal recommends


def test_a_cpu_wires_nothing(mac, limits):
    import mlx.core as mx

    from akidb_mlx.runtime.allocator import wired

    mac(None)
    with wired(mx.Device(mx.cpu), 100):
        assert limits == [7]


# The device of a process


@pytest.fixture
def default(monkeypatch):
    """MLX's default device, which is a CPU at first, in a process without a model."""
    import mlx.core as mx

    from akidb_mlx.runtime import device

    now = [mx.Device(mx.cpu)]
    monkeypatch.setattr(mx, "default_device", lambda: now[0])
    monkeypatch.setattr(mx, "set_default_device", lambda one: now.__setitem__(0, one))
    monkeypatch.setattr(device, "_claims", [])
    return now


def test_the_last_model_that_is_closed_gives_the_device_back(default):
    import mlx.core as mx

    from akidb_mlx.runtime.device import claim

    cpu, gpu = mx.Device(mx.cpu), mx.Device(mx.gpu)
    first, second = claim(gpu), claim(gpu)
    assert default == [gpu]
    for one in (first, first):
        one.release()
        with pytest.raises(ConfigurationError, match=r"already computes on its gpu.*close those on the other"):
            claim(cpu)
    second.release()
    assert default == [cpu]
    claim(cpu).release()
    claim(gpu)


def test_a_host_that_chose_another_device_keeps_it(default):
    import mlx.core as mx

    from akidb_mlx.runtime.device import claim

    gpu = mx.Device(mx.gpu)
    one = claim(mx.Device(mx.cpu))
    default[0] = gpu
    one.release()
    assert default == [gpu]


def test_a_service_claims_the_device_until_it_is_closed(monkeypatch, tmp_path):
    from akidb_mlx.runtime import device

    monkeypatch.setattr(device, "_claims", [])
    with EmbeddingService(TINY, device="cpu"):
        assert len(device._claims) == 1
    wait_until(lambda: not device._claims)
    damaged = copy_model("tiny-bert", tmp_path)
    edit_tensors(damaged / "model.safetensors", lambda tensors: dict(list(tensors.items())[1:]))
    with pytest.raises(ModelLoadError):
        EmbeddingService(damaged, device="cpu")
    assert not device._claims


def test_each_step_takes_the_device_that_a_host_left_changed(monkeypatch):
    """`with mx.stream(mx.cpu)` on another thread restores the default that it found, whatever was chosen since."""
    import mlx.core as mx

    chosen = []
    with EmbeddingService(TINY, device="cpu") as one:
        monkeypatch.setattr(mx, "set_default_device", chosen.append)
        one.embed(["a"])
        assert chosen == [mx.Device(mx.cpu)]


def test_a_thread_has_streams_for_each_device(monkeypatch):
    """An owner thread may serve a model on a CPU, and later one on a GPU."""
    import mlx.core as mx

    from akidb_mlx.runtime import device

    monkeypatch.setattr(device, "_thread", type("Thread", (), {})())
    monkeypatch.setattr(mx, "default_stream", lambda one: (str(one), 0))
    monkeypatch.setattr(mx, "new_stream", lambda one: (str(one), 1))
    cpu, gpu = mx.Device(mx.cpu), mx.Device(mx.gpu)
    assert device.lane_streams(cpu, 2) == [(str(cpu), 0), (str(cpu), 1)]
    assert device.lane_streams(gpu, 1) == [(str(gpu), 0)]
    assert device.lane_streams(cpu, 1) == [(str(cpu), 0)]
