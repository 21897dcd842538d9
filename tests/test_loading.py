"""Loading a model: the device is held while weights are evaluated, in turns, and for no other work."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.engine.backend import TokenRows
from tests.support import GOLDENS, copy_model


def new_model(directory, precision="auto"):
    from akidb_mlx.backends.mlx.model import EmbeddingModel
    from akidb_mlx.backends.mlx.plan import execution_plan

    checkpoint = read_checkpoint(directory)
    plan = execution_plan("cpu", precision, None, checkpoint.dtype, False, checkpoint.encoder_config.hidden_size)
    return EmbeddingModel(checkpoint, plan)


def vectors_of(model):
    """The vectors of two rows, of which one is padded."""
    rows = TokenRows(
        np.array([[5, 6, 7, 8], [9, 10, 0, 0]], np.int32), np.array([4, 2], np.int32), np.empty(0, np.int32)
    )
    return model.start([rows]).result()[0]


@pytest.fixture
def small_turns(monkeypatch):
    """Turns on the device of few bytes, so that tiny models take many."""
    from akidb_mlx.runtime import device_turns

    monkeypatch.setattr(device_turns, "_TURN_BYTES", 20_000)


@pytest.mark.usefixtures("small_turns")
def test_the_device_is_held_for_evaluation_only(monkeypatch):
    import mlx.core as mx

    from akidb_mlx.backends.mlx import model as models
    from akidb_mlx.backends.mlx import weights
    from akidb_mlx.runtime import device_turns

    held = False
    turns = 0
    seen = []

    class Lock:
        def __enter__(self):
            nonlocal held, turns
            assert not held
            held, turns = True, turns + 1

        def __exit__(self, *_):
            nonlocal held
            held = False

    def recorded(name, function):
        def record(*arguments, **options):
            seen.append((name, held, turns))
            return function(*arguments, **options)

        return record

    monkeypatch.setattr(device_turns, "device_lock", Lock())
    monkeypatch.setattr(models, "device_lock", device_turns.device_lock)
    monkeypatch.setattr(mx, "load", recorded("read", mx.load))
    monkeypatch.setattr(mx, "eval", recorded("evaluate", mx.eval))
    monkeypatch.setattr(models, "build_encoder", recorded("build", models.build_encoder))
    reader = weights.WeightReader
    monkeypatch.setattr(reader, "check_complete", recorded("check", reader.check_complete))
    monkeypatch.setattr(reader, "fused_linear", recorded("layer", reader.fused_linear))

    new_model(GOLDENS / "tiny-qwen3")
    before = [event for event in seen if event[0] != "evaluate"]
    evaluations = [event for event in seen if event[0] == "evaluate"]
    assert {name for name, _, _ in before} == {"read", "build", "check", "layer"}
    assert not any(during or turn for _, during, turn in before)
    assert len(evaluations) > 10
    # Each in a turn of its own; the last is the trial.
    assert evaluations == [("evaluate", True, turn) for turn in range(1, len(evaluations) + 1)]


@pytest.mark.usefixtures("small_turns")
def test_another_model_runs_between_two_turns(monkeypatch):
    import mlx.core as mx

    from akidb_mlx.runtime.locks import device_lock

    had_the_device = threading.Event()
    evaluate = mx.eval
    turns = []

    def other():
        with device_lock:
            had_the_device.set()

    def watched(*arrays):
        if not turns:
            thread = threading.Thread(target=other, daemon=True)
            thread.start()
            while not device_lock.wanted:
                thread.join(0.001)
        turns.append(had_the_device.is_set())
        evaluate(*arrays)

    monkeypatch.setattr(mx, "eval", watched)
    new_model(GOLDENS / "tiny-bert")
    assert len(turns) > 10  # the last is the trial
    assert turns[:2] == [False, True]


@contextmanager
def without_weights(directory, monkeypatch):
    """Empty the weight file once its tensors have been evaluated, so that none can be read later."""
    from akidb_mlx.backends.mlx.weights import WeightReader

    evaluate = WeightReader.evaluate

    def then_emptied(reader):
        size = evaluate(reader)
        with (directory / "model.safetensors").open("r+b") as file:
            file.truncate(0)
        return size

    with monkeypatch.context() as patch:
        patch.setattr(WeightReader, "evaluate", then_emptied)
        yield


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("tiny-bert", "auto"),
        ("tiny-roberta", "bfloat16"),
        ("tiny-qwen3-4bit", "auto"),
        ("tiny-qwen3-4bit", "float16"),
        ("tiny-gemma3-4bit", "auto"),
        ("tiny-gemma3-4bit", "bfloat16"),
    ],
)
def test_every_weight_is_evaluated_before_the_trial(tmp_path, monkeypatch, name, precision):
    """Fused, dequantised and quantised ones, embeddings and Dense layers too: nothing is left to read."""
    expected = vectors_of(new_model(GOLDENS / name, precision))
    directory = copy_model(name, tmp_path)
    with without_weights(directory, monkeypatch):
        model = new_model(directory, precision)
    assert (directory / "model.safetensors").stat().st_size == 0
    assert np.array_equal(vectors_of(model), expected)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("tiny-bert", "auto"), ("tiny-qwen3-4bit", "auto"), ("tiny-qwen3-4bit", "float16"), ("tiny-gemma3-4bit", "auto")],
)
def test_the_bytes_of_the_weights_are_those_that_stay(name, precision):
    """The arrays that a layer was made of (three stored projections for one, packed values) are freed."""
    import mlx.core as mx

    new_model(GOLDENS / name, precision).close()  # so that this thread has its streams
    before = mx.get_active_memory()
    model = new_model(GOLDENS / name, precision)
    assert mx.get_active_memory() - before == pytest.approx(model.facts.weight_bytes, rel=0.03)


def test_groups_are_bounded():
    import mlx.core as mx

    from akidb_mlx.runtime.device_turns import _groups

    arrays = [mx.zeros(size) for size in (10, 20, 30, 200, 5, 100)]
    sizes = [[array.size for array in group] for group in _groups(arrays, 4 * 60)]
    assert sizes == [[10, 20, 30], [200], [5], [100]]
    assert list(_groups([], 100)) == []
