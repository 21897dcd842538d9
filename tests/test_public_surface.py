"""The parts of the public interface that are not about vectors: arguments, reports, asyncio, logging, repr."""

import asyncio
import inspect
import logging
import threading

import numpy as np
import pytest

import akidb_mlx
from akidb_mlx import Embedder, EmbeddingService, Settings
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelNotFoundError, ServiceClosedError
from akidb_mlx.reports import Health, ModelInfo, ServiceMetrics
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import GOLDENS, run_python


def test_the_first_parameter_is_the_models_name():
    """As callers of the first package write it: positional or by name."""
    assert next(iter(inspect.signature(EmbeddingService).parameters)) == "model_name"
    with EmbeddingService(model_name=str(GOLDENS / "tiny-bert"), device="cpu") as one:
        assert one.get_model_info()["model_name"] == str(GOLDENS / "tiny-bert")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "tpu"}, ConfigurationError, "device must be one of auto, gpu, cpu, found 'tpu'"),
        ({"backend": "torch"}, ConfigurationError, "backend must be one of auto, mlx, onnx, llama.cpp, found 'torch'"),
        ({"dimensions": 0}, InvalidInputError, "dimensions must be an integer of 1 or more, found 0"),
        ({"dimensions": "64"}, InvalidInputError, "dimensions must be an integer of 1 or more, found '64'"),
        ({"dimensions": True}, InvalidInputError, "dimensions must be an integer"),
        ({"auto_download": "no"}, InvalidInputError, "auto_download must be True or False"),
        ({"settings": {"device": "cpu"}}, InvalidInputError, "settings must be akidb_mlx.Settings or None, found dict"),
        ({"model_name": ""}, InvalidInputError, "model_name must be"),
        ({"model_name": None}, InvalidInputError, "model_name must be"),
        ({"model_name": b"minilm-l6-v2"}, InvalidInputError, "model_name must be"),
        ({"model_name": 7}, InvalidInputError, "model_name must be"),
    ],
)
def test_a_bad_argument_is_refused_before_any_file_is_read(monkeypatch, arguments, error, message):
    def touch(*_, **__):
        raise AssertionError("a file was looked for")

    monkeypatch.setattr("akidb_mlx.loading.acquire_directory", touch)
    with pytest.raises(error, match=message):
        EmbeddingService(**{"model_name": "org/name", **arguments})


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("pooling", "the model's own files say how it pools"),
        ("normalize", r"embed\(texts, normalize=False\)"),
        ("config", "settings=Settings"),
        ("config_path", "AKIDB_CONFIG"),
        ("no_such_thing", ""),
    ],
)
def test_arguments_of_the_first_package_are_refused_by_name(monkeypatch, argument, instead):
    monkeypatch.setattr("akidb_mlx.loading.acquire_directory", None)
    with pytest.raises(TypeError, match=f"EmbeddingService has no argument '{argument}'.*{instead}"):
        EmbeddingService("org/name", **{argument: "mean"})


def test_attributes_of_the_first_package(service):
    one = service("tiny-qwen3")
    info = one.get_model_info()
    attributes = (one.model_name, one.dimension, one.max_tokens)
    assert attributes == (info["model_name"], info["dimension"], info["max_tokens"])
    assert one.dimension == 64
    with FakeEmbedder() as fake:
        assert (fake.model_name, fake.dimension) == ("fake", 16)


def test_the_settings_choose_the_dimensions_of_a_service(monkeypatch):
    """A call chooses before the service, the service before the settings, and those before the catalogue."""
    monkeypatch.setenv("AKIDB_DIMENSIONS", "48")
    model = str(GOLDENS / "tiny-qwen3")
    with EmbeddingService(model, device="cpu") as one:
        assert one.dimension == 48
        assert one.embed_array(["a"]).shape == (1, 48)
        assert one.embed_array(["a"], dimensions=64).shape == (1, 64)
    with EmbeddingService(model, device="cpu", dimensions=32) as one:
        assert one.dimension == 32
    with EmbeddingService(model, device="cpu", settings=Settings(dimensions=16)) as one:
        assert one.dimension == 16


@pytest.mark.parametrize(
    ("model", "dimensions", "fault"), [("tiny-qwen3", 65, "from 1 to 64"), ("tiny-bert", 32, "was not trained")]
)
def test_dimensions_of_the_settings_that_a_model_does_not_have(model, dimensions, fault):
    with pytest.raises(ConfigurationError, match=f"AKIDB_DIMENSIONS.* does not fit .*{model}.*{fault}"):
        EmbeddingService(str(GOLDENS / model), device="cpu", settings=Settings(dimensions=dimensions))


def test_the_backend_can_be_named():
    with EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu", backend="mlx") as one:
        assert one.get_model_info()["backend"] == "mlx"


@pytest.mark.parametrize("dimensions", [np.int64(32), np.int8(32), np.uint16(32), 32])
def test_dimensions_of_every_kind_of_integer(service, dimensions):
    assert service("tiny-qwen3").embed_array(["a"], dimensions=dimensions).shape == (1, 32)


def test_an_option_that_there_is_not_is_named(service):
    with pytest.raises(TypeError, match="unknown option truncate"):
        service("tiny-bert").embed(["a"], truncate=True)


def test_reports_hold_the_keys_that_their_types_name(service):
    one = service("tiny-bert")
    one.embed(["a"])
    assert set(one.get_model_info()) == set(ModelInfo.__annotations__)
    assert set(one.get_metrics()) == ServiceMetrics.__required_keys__
    assert set(one.health_check()) == set(Health.__annotations__)
    assert set(one.get_metrics()["latency_s"]) == {"tokenize", "wait", "device_wait", "compute", "finish", "call"}


def test_batches_compare_and_hash_by_identity(service):
    one, other = (service("tiny-bert").embed_detailed(["some text"] * 50) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2
    assert "50 texts" in repr(one)
    assert len(repr(one)) < 400


def test_a_repr_is_short_and_says_the_state():
    one = EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu")
    assert "tiny-bert" in repr(one)
    assert "ready" in repr(one)
    assert len(repr(one)) < 400
    one.close()
    assert "closed" in repr(one)


def test_a_service_that_was_never_made_has_a_repr_too():
    assert repr(EmbeddingService.__new__(EmbeddingService)) == "<EmbeddingService, not loaded>"


def test_logging_is_left_to_the_program():
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("akidb_mlx").handlers)
    done = run_python("import akidb_mlx, logging; logging.getLogger('akidb_mlx.engine.life').warning('a warning')")
    assert (done.stdout, done.stderr) == ("", "")


# Embedder


def test_an_embedder_needs_five_methods():
    assert Embedder.__abstractmethods__ == {"submit", "get_model_info", "get_metrics", "health_check", "close"}
    assert issubclass(EmbeddingService, Embedder)


def test_the_other_calls_are_built_on_those():
    with FakeEmbedder() as fake:
        expected = np.stack([encode("a"), encode("bc")])
        assert np.array_equal(fake.embed_array(["a", "bc"]), expected)
        assert fake.embed(["a", "bc"]) == expected.tolist()
        assert fake.embed_bytes(["a", "bc"]) == expected.tobytes()
        assert fake.embed_detailed(["a", "bc"]).token_counts == [1, 2]
        assert np.array_equal(asyncio.run(fake.aembed(["a", "bc"])), expected)
        with pytest.raises(InvalidInputError, match="from 1 to 16"):
            fake.embed(["a"], dimensions=17)
    with pytest.raises(ServiceClosedError):
        fake.embed(["a"])


# asyncio


def test_aembed_is_embed_array(service):
    one = service("tiny-bert")

    async def both():
        return await asyncio.gather(one.aembed(["a", "b"]), one.aembed(["c"], dimensions=64))

    two, single = asyncio.run(both())
    assert np.abs(two - one.embed_array(["a", "b"])).max() < 1e-6
    assert np.abs(single - one.embed_array(["c"])).max() < 1e-6


def test_aembed_raises_what_embed_raises(service):
    with pytest.raises(InvalidInputError, match="text 1 must be a string"):
        asyncio.run(service("tiny-bert").aembed(["a", 7]))


def test_aembed_never_tokenises_on_the_event_loop(service, monkeypatch):
    one = service("tiny-bert")
    threads = []
    tokenize = one._tokenizers[""]

    def noted(*arguments):
        threads.append(threading.current_thread())
        return tokenize(*arguments)

    monkeypatch.setitem(one._tokenizers, "", noted)
    asyncio.run(one.aembed(["a"]))
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_the_loop_goes_on_and_a_task_can_be_cancelled_while_texts_are_tokenised(service):
    """Also before the call has a future: it is cancelled as soon as it has one."""
    one = service("tiny-bert")

    async def cancel():
        with one._tokenizers[""]._short._lock:  # on this thread; the call waits for it on another
            task = asyncio.create_task(one.aembed(["a"]))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = one.get_metrics()["calls"]
    asyncio.run(cancel())  # which joins the threads of the loop's executor
    one.embed(["b"])
    after = one.get_metrics()["calls"]
    ended = sum(after.values()) - sum(before.values())
    assert ended == 2
    assert after["failed"] == before["failed"]
    assert one.get_metrics()["queue"]["requests"] == 0


def test_a_task_that_is_cancelled_while_it_waits_cancels_its_call(service):
    from akidb_mlx.runtime.locks import device_lock

    one = service("tiny-bert")
    before = one.get_metrics()["calls"]["cancelled"]

    async def cancel():
        task = asyncio.create_task(one.aembed(["a"]))
        while not one.get_metrics()["queue"]["requests"]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with device_lock:
        asyncio.run(cancel())
    one.embed(["b"])
    assert one.get_metrics()["calls"]["cancelled"] == before + 1


# Settings


def test_settings_in_code_raise_our_own_error():
    with pytest.raises(ConfigurationError, match="device"):
        Settings(device="tpu")
    with pytest.raises(ConfigurationError, match="no_such_setting"):
        Settings(no_such_setting=1)


def test_a_name_that_is_nothing_is_not_found():
    with pytest.raises(ModelNotFoundError):
        EmbeddingService("org/name", auto_download=False)


def test_a_model_that_is_not_found_is_a_value_error_as_in_the_first_package():
    for name in ("org/name", "no-such-name"):
        with pytest.raises(ValueError, match=name):
            EmbeddingService(name, auto_download=False)


def test_one_version():
    assert akidb_mlx.__version__.count(".") == 2
