"""The contract of EmbeddingService."""

import gc
import struct
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from akidb_mlx import EmbeddingBatch, EmbeddingService, Settings
from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import (
    AkidbMlxError,
    ConfigurationError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    ServiceClosedError,
)
from model_cache import ModelCache, ModelInUseError
from tests.support import GOLDENS, TEXTS, golden

LONG = "The harbour master kept a ledger of every vessel. " * 100


def test_a_service_keeps_its_model_from_being_removed(hub):
    hub.add("org/held", GOLDENS / "tiny-bert")
    with EmbeddingService("org/held", device="cpu"), pytest.raises(ModelInUseError, match="is open in a process"):
        ModelCache().remove("org/held")
    assert [model.repo_id for model in ModelCache().remove("org/held")] == ["org/held"]


@pytest.fixture
def bert(service):
    return service("tiny-bert")


@pytest.fixture
def qwen(service):
    return service("tiny-qwen3")


def test_five_calls_give_the_same_vectors(bert):
    array = bert.embed_array(TEXTS)
    assert array.shape == (len(TEXTS), 64)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    listed = bert.embed(TEXTS)
    assert type(listed) is list
    assert type(listed[0]) is list
    assert type(listed[0][0]) is float
    assert (np.array(listed, dtype=np.float32) == array).all()
    assert bert.embed_bytes(TEXTS) == b"".join(struct.pack("<64f", *row) for row in array.tolist())
    assert (bert.embed_detailed(TEXTS).vectors == array).all()
    future = bert.submit(TEXTS)
    assert isinstance(future, Future)
    assert (future.result().vectors == array).all()


def test_no_texts(bert):
    assert bert.embed([]) == []
    assert bert.embed_array([]).shape == (0, 64)
    assert bert.embed_bytes([]) == b""
    assert bert.embed_detailed([]).token_counts == []


def test_details(bert):
    batch = bert.embed_detailed(["hello world", LONG])
    assert isinstance(batch, EmbeddingBatch)
    assert batch.truncated == [False, True]
    assert batch.token_counts == [4, 256]
    assert (batch.model, batch.dimension) == (str(GOLDENS / "tiny-bert"), 64)


def test_any_collection_of_strings(bert):
    expected = bert.embed(["a", "b"])
    assert bert.embed(("a", "b")) == expected
    assert bert.embed(iter(["a", "b"])) == expected
    assert bert.embed(np.array(["a", "b"])) == expected


def test_dimensions_cut_and_renormalise(qwen):
    expected = golden("tiny-qwen3")["none"][:, :32]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(qwen.embed_array(TEXTS, dimensions=32) - expected).max() <= 2e-5
    assert qwen.embed_detailed(["a"], dimensions=32).dimension == 32
    with EmbeddingService(str(GOLDENS / "tiny-qwen3"), dimensions=32, device="cpu") as short:
        assert short.get_model_info()["dimension"] == 32
        assert np.abs(short.embed_array(TEXTS) - expected).max() <= 2e-5
        assert short.embed_array(["a"], dimensions=64).shape == (1, 64)


@pytest.mark.parametrize("dimensions", [0, -1, 65, 1.5, True, "32"])
def test_dimensions_out_of_range(qwen, dimensions):
    with pytest.raises(InvalidInputError, match="dimensions must be an integer from 1 to 64"):
        qwen.embed(["a"], dimensions=dimensions)


@pytest.mark.parametrize(("dimensions", "allowed"), [(0, "of 1 or more"), (65, "from 1 to 64")])
def test_dimensions_out_of_range_for_the_whole_service(dimensions, allowed):
    with pytest.raises(InvalidInputError, match=f"dimensions must be an integer {allowed}, found {dimensions}"):
        EmbeddingService(str(GOLDENS / "tiny-qwen3"), dimensions=dimensions, device="cpu")


def test_dimensions_that_were_not_trained_need_insistence(bert):
    with pytest.raises(InvalidInputError, match="AKIDB_ALLOW_UNTRAINED_DIMENSIONS"):
        bert.embed(["a"], dimensions=32)
    insist = Settings(allow_untrained_dimensions=True)
    with EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu", settings=insist) as one:
        assert one.embed_array(["a"], dimensions=32).shape == (1, 32)


def test_vectors_need_not_be_normalised(bert):
    raw = bert.embed_array(TEXTS, normalize=False)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    assert np.abs(raw / lengths - golden("tiny-bert")["none"]).max() <= 2e-5


def test_prompts(qwen):
    query = golden("tiny-qwen3")["query"]
    literal = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    assert np.abs(qwen.embed_array(TEXTS, prompt=literal) - query).max() <= 2e-5
    assert np.abs(qwen.embed_array(TEXTS, input_type="document") - golden("tiny-qwen3")["none"]).max() <= 2e-5


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3"])
def test_chunks_are_averaged_by_token_count(service, name):
    """The windows embedded one by one give the vector of the whole."""
    one = service(name)
    (text,) = one._tokenizers[""]([LONG], "", "chunk")
    opened = one._engine.open_call(lambda parts: parts[0], 0, Deadline(None))
    opened.add(text.windows, [0] * len(text.windows), BatchKey(), lambda pooled: pooled, 0)
    opened.end()
    windows = opened.future.result()
    windows = windows / np.linalg.norm(windows, axis=1, keepdims=True)
    expected = (windows * [[len(window)] for window in text.windows]).sum(axis=0)
    batch = one.embed_detailed(["short", LONG, "short"], on_overflow="chunk")
    assert np.abs(batch.vectors[1] - expected / np.linalg.norm(expected)).max() <= 1e-5
    assert np.abs(batch.vectors[0] - batch.vectors[2]).max() <= 1e-6
    assert batch.truncated == [False, False, False]
    assert batch.token_counts[1] > one.get_model_info()["max_tokens"]


def test_overflow_can_be_an_error(bert):
    with pytest.raises(InvalidInputError, match="text 1 has") as caught:
        bert.embed(["fine", LONG], on_overflow="error")
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"on_overflow": "shrug"}, "on_overflow must be one of truncate, error, chunk, found 'shrug'"),
        ({"on_overflow": []}, "on_overflow must be one of"),
        ({"normalize": "yes"}, "normalize must be True or False"),
        ({"input_type": "nope"}, "none of this model's prompts"),
        ({"prompt": "\ud800"}, r"prompt holds a lone surrogate, U\+D800"),
    ],
)
def test_options_that_are_not_usable(bert, options, problem):
    with pytest.raises(InvalidInputError, match=problem):
        bert.embed(["a"], **options)


def test_an_unknown_option_is_a_type_error(bert):
    with pytest.raises(TypeError, match="unknown option normalise; known: input_type, prompt"):
        bert.embed(["a"], normalise=True)


@pytest.mark.parametrize("texts", ["a string", b"bytes", None, 3, {"a": 1}])
def test_texts_must_be_a_list(bert, texts):
    with pytest.raises(InvalidInputError, match="texts must be a list of strings, found"):
        bert.embed(texts)


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["nested"], "lone \ud83d surrogate", "\udfff"])
def test_a_bad_text_is_named(bert, bad):
    with pytest.raises(InvalidInputError, match="text 2 ") as caught:
        bert.embed(["fine", "also fine", bad, "fine"])
    assert caught.value.index == 2
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AkidbMlxError)


def test_a_nul_is_ordinary(bert):
    assert bert.embed_array(["a\0b"]).shape == (1, 64)


def test_one_callers_bad_text_does_not_fail_another(bert):
    expected = bert.embed_array(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(bert.embed_array, TEXTS) for _ in range(8)]
        bad = [pool.submit(bert.embed_array, ["a", "\ud800"]) for _ in range(8)]
        assert all(np.abs(future.result() - expected).max() <= 1e-5 for future in good)
        assert all(isinstance(future.exception(), InvalidInputError) for future in bad)


def test_model_info(service):
    info = service("tiny-gemma3-4bit").get_model_info()
    expected = {
        "model_name": str(GOLDENS / "tiny-gemma3-4bit"),
        "dimension": 64,
        "native_dimension": 64,
        "max_tokens": 512,
        "backend": "mlx",
        "device": "cpu",
        "precision": "float32",
        "allow_tf32": False,
        "quantization": "4-bit affine, group 64",
        "pooling": "mean",
        "prompts": ["STS", "document", "query"],
        "matryoshka": True,
        "architecture": "gemma3_text",
        "revision": None,
        "status": "ready",
    }
    assert {key: info[key] for key in expected} == expected
    for value in info.values():
        assert value is None or type(value) in (str, int, bool, list, dict)
    assert info["memory"].keys() == {"active", "cached", "peak"}
    assert info["weight_bytes"] > 100_000


def test_the_minilm_of_the_catalogue(minilm):
    info = minilm.get_model_info()
    assert (info["model_name"], info["dimension"], info["max_tokens"]) == ("minilm-l6-v2", 384, 256)
    assert minilm.embed_detailed(["a"]).model == "minilm-l6-v2"


def test_health_and_closing():
    one = EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu")
    assert one.health_check() == {"status": "ok", "reason": "ready", "engine": "ready"}
    one.close()
    one.close()
    assert one.health_check() == {"status": "failed", "reason": "closed", "engine": "closed"}
    assert one.get_model_info()["status"] == "closed"
    with pytest.raises(ServiceClosedError, match="the service is closed"):
        one.embed(["a"])


def test_a_service_that_nobody_holds_ends_its_engine():
    one = EmbeddingService(str(GOLDENS / "tiny-bert"), device="cpu")
    engine, gone = one._engine, weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    assert engine.join(5)


def test_services_share_a_process(service):
    with ThreadPoolExecutor(4) as pool:
        names = ["tiny-bert", "tiny-qwen3", "tiny-gemma3", "tiny-roberta"]
        for name, vectors in zip(names, pool.map(lambda name: service(name).embed_array(TEXTS), names), strict=True):
            assert np.abs(vectors - golden(name)["none"]).max() <= 2e-5


def test_a_model_that_is_nowhere():
    with pytest.raises(ModelNotFoundError, match="`akidb-mlx models` lists the names known without a repository"):
        EmbeddingService("no-such-model")
    with pytest.raises(ModelNotFoundError, match="org/name is not on this machine"):
        EmbeddingService("org/name")
    with pytest.raises(ModelNotFoundError, match="downloading is switched off"):
        EmbeddingService("org/name", auto_download=False)


def test_a_missing_minilm_names_the_extra(monkeypatch):
    monkeypatch.setattr("model_cache.packages.ModelPackage.find", lambda _: None)
    with pytest.raises(ModelNotFoundError, match=r"akidb-mlx\[minilm\]"):
        EmbeddingService("minilm-l6-v2")


def test_a_path_is_a_model_too():
    with EmbeddingService(GOLDENS / "tiny-bert", device="cpu") as one:
        assert one.get_model_info()["model_name"] == str(GOLDENS / "tiny-bert")


def test_a_device_that_does_not_exist():
    with pytest.raises(ConfigurationError, match="device must be one of auto, gpu, cpu, found 'tpu'"):
        EmbeddingService(str(GOLDENS / "tiny-bert"), device="tpu")


def test_a_load_that_fails_leaves_no_thread(tmp_path):
    before = threading.active_count()
    with pytest.raises(ModelLoadError):
        (tmp_path / "config.json").write_text("{}")
        EmbeddingService(str(tmp_path))
    assert threading.active_count() == before
