"""Models that ONNX Runtime computes: which file and which library, inputs and outputs, the engine around them."""

import os
import subprocess
import sys
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from unittest.mock import Mock

import mlx.core as mx
import numpy as np
import pytest
from onnx import TensorProto

from akidb_mlx import EmbeddingService, MultiVectorEmbedder, Reranker, Settings, SparseEmbedder
from akidb_mlx.backends.mlx import activations
from akidb_mlx.backends.onnx import runtime
from akidb_mlx.backends.onnx.head import DENSE
from akidb_mlx.backends.onnx.model import OnnxModel
from akidb_mlx.checkpoint.head import DENSE_ACTIVATIONS
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    ModelLoadError,
    ModelNotFoundError,
)
from akidb_mlx.runtime import device, mlx_import
from akidb_mlx.runtime.locks import device_lock
from tests.hub import Fault
from tests.onnx_models import TABLE, exported, table_model, with_model
from tests.support import GOLDENS, TEXTS, run_python


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT with an exported file beside it."""
    return exported("tiny-bert", tmp_path_factory.mktemp("onnx"), file="exported.onnx")


def load(directory, **options) -> EmbeddingService:
    return EmbeddingService(str(directory), device="cpu", **{"backend": "onnx", **options})


def backend_of(directory, **options) -> str:
    with EmbeddingService(str(directory), **{"device": "cpu", **options}) as service:
        return service.get_model_info()["backend"]


def refusal(directory, **options) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(directory, **options)
    return str(caught.value)


# Which library computes


def test_auto_is_onnx_runtime_on_a_plain_cpu_where_the_model_has_a_file(bert, monkeypatch):
    assert backend_of(bert) == "onnx"
    assert backend_of(bert, backend="auto") == "onnx"
    assert backend_of(bert, backend="mlx") == "mlx"
    assert backend_of(bert, settings=Settings(backend="mlx")) == "mlx"
    assert backend_of(bert, backend="auto", settings=Settings(backend="mlx")) == "onnx"
    assert backend_of(bert, settings=Settings(precision="bfloat16")) == "mlx"
    assert backend_of(GOLDENS / "tiny-bert") == "mlx"
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    assert backend_of(bert) == "mlx"


@pytest.mark.parametrize(("gpu", "found"), [(True, "mlx"), (False, "onnx")])
def test_auto_is_mlx_where_it_may_have_a_gpu(bert, monkeypatch, gpu, found):
    monkeypatch.setattr(mlx_import, "may_have_gpu", lambda: gpu)
    monkeypatch.setattr(device, "default_device", lambda: mx.Device(mx.cpu))
    assert backend_of(bert, device="auto") == found


def test_the_environment_names_the_backend_and_the_file(bert, monkeypatch):
    monkeypatch.setenv("AKIDB_BACKEND", "onnx")
    assert backend_of(bert) == "onnx"
    monkeypatch.setenv("AKIDB_ONNX_FILE", "model_int8")
    assert "holds no model_int8.onnx in its folder onnx; found exported.onnx" in refusal(bert, backend=None)


def test_an_unknown_backend_is_refused(bert):
    with pytest.raises(ConfigurationError, match=r"backend must be one of auto, mlx, onnx, llama.cpp, found 'tflite'"):
        load(bert, backend="tflite")


def test_without_onnx_runtime_the_error_names_the_extra(bert, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"not installed: pip install 'akidb-mlx\[onnx\]'"):
        load(bert)


def test_a_gpu_that_onnx_runtime_does_not_have_is_refused(bert, monkeypatch):
    monkeypatch.setattr(runtime, "_GPUS", ("NoSuchProvider",))
    with pytest.raises(ConfigurationError, match=r"device gpu: this ONNX Runtime has neither"):
        EmbeddingService(str(bert), device="gpu", backend="onnx")


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("CUDAExecutionProvider", [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]),
        ("CPUExecutionProvider", [("CPUExecutionProvider", {})]),
    ],
)
def test_products_on_cuda_are_not_rounded_to_tf32(bert, monkeypatch, provider, expected):
    import onnxruntime

    session = Mock()
    session.return_value.get_providers.return_value = [provider]
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert runtime.open_session(bert / "onnx" / "model.onnx", provider, threads=0) is session.return_value
    assert session.call_args.kwargs["providers"] == expected


def test_a_model_without_a_file_says_how_to_make_one():
    assert "holds no model.onnx in its folder onnx; `akidb-mlx export` makes one" in refusal(GOLDENS / "tiny-bert")


@pytest.mark.parametrize("kind", [Reranker, SparseEmbedder, MultiVectorEmbedder])
def test_other_models_are_refused_by_name(kind):
    names = {Reranker: "reranker-bert", SparseEmbedder: "sparse-bert", MultiVectorEmbedder: "colbert-bert"}
    with pytest.raises(ConfigurationError, match=r"backend onnx computes embedding models, and not a"):
        kind(str(GOLDENS / names[kind]), device="cpu", backend="onnx")


def test_a_model_of_several_encoders_is_refused_and_auto_takes_mlx(tmp_path):
    directory = with_model(tmp_path, table_model(), "towers-bert-qwen3")
    with pytest.raises(ConfigurationError, match=r"has several encoders: use auto"):
        load(directory)
    assert backend_of(directory) == "mlx"


def test_a_service_on_onnx_runtime_does_not_import_mlx_nor_the_other_way_round(bert):
    for backend, absent in (("onnx", ("mlx.core", "onnx")), ("mlx", ("onnxruntime", "onnx"))):
        done = run_python(
            "import akidb_mlx, sys\n"
            f"akidb_mlx.EmbeddingService({str(bert)!r}, device='cpu', backend={backend!r}).embed(['a'])\n"
            f"print([m for m in {absent!r} if m in sys.modules])"
        )
        assert done.stdout == "[]\n", done.stderr


def test_onnx_runtime_reports_nothing_to_its_makers(bert, tmp_path):
    """It would leave what it sends, and a number of this machine, in the home folder; CI switches it off too."""
    code = (
        f"import akidb_mlx\nwith akidb_mlx.EmbeddingService({str(bert)!r}, device='cpu', backend='onnx') as service:\n"
        "    print(len(service.embed(['a'])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_onnx_runtime_that_was_imported_before_is_told_to_report_nothing(bert, monkeypatch):
    import onnxruntime

    told = Mock()
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", told)
    load(bert).close()
    told.assert_called()


# Files, inputs and outputs


@pytest.mark.parametrize("name", ["model_fp16", "model_fp16.onnx", "onnx/model_fp16.onnx"])
def test_a_file_is_chosen_by_name(tmp_path, name):
    half = TABLE.astype(np.float16)
    directory = with_model(tmp_path, table_model(table=half), file="model_fp16.onnx")
    with load(directory, onnx_file=name) as service:
        info = service.get_model_info()
        assert (info["precision"], info["backend"]) == ("float16", "onnx")
        single = load(with_model(tmp_path, table_model())).embed_array(TEXTS[:5])
        assert np.abs(service.embed_array(TEXTS[:5]) - single).max() < 1e-2


@pytest.mark.parametrize("name", ["../model", "a/b.onnx", "", 3, "/etc/passwd", "x" * 300])
def test_a_name_that_leaves_the_folder_is_refused(bert, name):
    with pytest.raises(ConfigurationError, match="onnx_file must be the name of a file"):
        load(bert, onnx_file=name)


def expected_means(texts, directory):
    with load(directory) as service:
        ids = [[token.id for token in tokens] for tokens in service.tokenize(texts)]
    means = np.stack([TABLE[one].mean(axis=0) for one in ids])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": "token_embeddings"},
        {"ids": TensorProto.INT32, "mask": TensorProto.INT32},
        {"mask": TensorProto.FLOAT},
        {"mask": TensorProto.BOOL},
        {"mask": None},
        {"extra": (("token_type_ids", TensorProto.INT64), ("position_ids", TensorProto.INT64))},
    ],
    ids=str,
)
def test_token_vectors_of_any_usual_signature_are_pooled(tmp_path, options):
    """Vectors of padding are NaN in this model, so that none of them may count."""
    directory = with_model(tmp_path, table_model(**options))
    texts = ["a", "the ship of the ledger", "a ship", *TEXTS[:6]]
    with load(directory) as service:
        found = service.embed_array(texts)
    assert np.abs(found - expected_means(texts, directory)).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"extra": (("past_key_values", TensorProto.FLOAT),)},
            "needs the input 'past_key_values', which cannot be given",
        ),
        ({"ids": TensorProto.FLOAT}, None),
        ({"mask": TensorProto.DOUBLE}, "the input attention_mask is a tensor(double), expected"),
        (
            {"output": "logits"},
            "has no output token_embeddings or last_hidden_state or sentence_embedding (found logits)",
        ),
        ({"shape": (1, 16)}, "export the model with a dynamic batch and length"),
    ],
    ids=str,
)
def test_other_signatures_are_refused_by_name(tmp_path, options, reason):
    found = refusal(with_model(tmp_path, table_model(**options)))
    assert (reason or "cannot be loaded by ONNX Runtime") in found


def test_positions_that_do_not_count_from_0_cannot_be_given(tmp_path):
    directory = with_model(tmp_path, table_model(extra=(("position_ids", TensorProto.INT64),)), "tiny-roberta")
    assert "needs the input 'position_ids'" in refusal(directory)


def test_a_pooled_output_is_of_no_use_where_prompts_are_left_out(tmp_path):
    pooled = exported("tiny-bert", tmp_path)
    content = (pooled / "onnx/model.onnx").read_bytes()
    directory = with_model(tmp_path, content, "tiny-roberta-prompt")
    assert "its sentence_embedding is of no use for this model" in refusal(directory)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    table = TABLE.copy()
    table[0] = np.inf
    assert "values that are not finite" in refusal(with_model(tmp_path, table_model(table=table)))


def test_dense_activations_are_those_of_mlx():
    x = np.linspace(-30, 30, 1001, dtype=np.float32)
    assert DENSE.keys() == set(DENSE_ACTIVATIONS)
    for name, function in DENSE.items():
        expected = np.array(activations.DENSE[name](mx.array(x)))
        assert np.abs(function(x) - expected).max() < 1e-5, name


# The engine around them


def test_it_does_not_wait_for_models_on_mlx(bert):
    with load(bert) as service, device_lock:
        assert service.embed_array(["a"], timeout=30).shape == (1, 64)


def test_steps_that_do_wait_are_those_of_mlx(bert):
    with load(bert, backend="mlx") as service, device_lock:
        call = service.submit(["a"])
        with pytest.raises(FutureTimeoutError):
            call.result(0.2)


def test_a_text_that_fails_fails_alone(bert, monkeypatch):
    run = OnnxModel._run

    def failing(self, rows):
        if (rows.lengths == length).any():
            raise RuntimeError("ONNX Runtime: out of something")
        return run(self, rows)

    with load(bert) as service:
        texts = ["a", "one two three", "a ship of the line with many sails"]
        lengths = [len(text) for text in service.tokenize(texts)]
        bad, length = 1, lengths[1]
        assert lengths.count(length) == 1
        monkeypatch.setattr(OnnxModel, "_run", failing)
        calls = [service.submit([text]) for text in texts]
        for index, call in enumerate(calls):
            if index == bad:
                with pytest.raises(InferenceError, match="out of something"):
                    call.result(60)
            else:
                assert call.result(60).vectors.shape == (1, 64)


def test_calls_of_many_threads_and_lengths_have_the_right_vectors(bert):
    with load(bert, backend="mlx") as reference:
        expected = reference.embed_array(TEXTS)
    with load(bert, settings=Settings(token_budget=64)) as service:
        calls = [service.submit([text]) for text in TEXTS * 3]
        found = np.concatenate([call.result(60).vectors for call in calls])
        assert service.get_metrics()["batches"] > 2
        with pytest.raises(DeadlineExceededError):
            service.embed(TEXTS * 50, timeout=0.001)
    assert np.abs(found - np.concatenate([expected] * 3)).max() <= 1e-5


def test_closing_frees_the_lanes(bert):
    with load(bert) as service:
        service.embed(["a"])
    before = threading.active_count()
    for _ in range(3):
        with load(bert) as service:
            service.embed(["a"])
    assert threading.active_count() <= before


def test_a_process_that_forgets_to_close_ends(bert):
    done = run_python(
        f"import akidb_mlx\ns = akidb_mlx.EmbeddingService({str(bert)!r}, device='cpu', backend='onnx')\n"
        "s.submit(['a'] * 50); print(len(s.embed(['b'])))",
        30,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


# Files from the Hub


@pytest.fixture
def repository(hub, tmp_path):
    """A repository with ONNX files, of which one has its weights in a second file."""
    directory = with_model(tmp_path, table_model(), file="model.onnx")
    with_model(tmp_path, table_model(table=TABLE.astype(np.float16)), file="model_fp16.onnx")
    (directory / "onnx/model_fp16.onnx_data").write_bytes(b"weights")
    (directory / "onnx/other.onnx").write_bytes(b"x" * 1000)
    hub.add("org/with-onnx", directory)
    return "org/with-onnx"


def test_a_named_file_is_computed_or_refused(bert):
    assert backend_of(bert, onnx_file="exported", settings=Settings(precision="float32")) == "onnx"
    for options in ({"backend": "mlx"}, {"settings": Settings(backend="mlx")}):
        with pytest.raises(ConfigurationError, match="onnx_file is 'exported', which backend mlx cannot compute"):
            backend_of(bert, onnx_file="exported", **options)
    with pytest.raises(ModelLoadError, match=r"holds no missing\.onnx"):
        backend_of(bert, onnx_file="missing")


def test_a_precision_that_the_file_does_not_have_is_refused(bert):
    with pytest.raises(ConfigurationError, match=r"precision is float16, and the weights of .+ are float32"):
        load(bert, settings=Settings(precision="float16"))


def test_only_the_chosen_file_is_fetched_verified_and_recorded(repository):
    cache = Settings().open_cache()
    with EmbeddingService(repository, device="cpu") as service:
        assert service.get_model_info()["backend"] == "mlx"  # auto fetches nothing for ONNX Runtime
    path = cache.ensure(repository)
    assert not (path / "onnx").exists()
    for name, found in (("model_fp16", ["model_fp16.onnx", "model_fp16.onnx_data"]), (None, ["model.onnx"])):
        with load(repository, onnx_file=name) as service:
            assert service.get_model_info()["path"] == str(path)
        assert set(found) <= {file.name for file in (path / "onnx").iterdir()}
    assert not (path / "onnx/other.onnx").exists()
    (model,) = cache.list()
    assert cache.verify() == {model.name: ()}
    (path / "onnx/model.onnx").write_bytes(b"x" * (path / "onnx/model.onnx").stat().st_size)
    assert cache.verify() == {model.name: ("onnx/model.onnx",)}
    assert not list(path.glob(".attached-*"))


def test_a_file_that_the_repository_does_not_have_is_named(repository):
    with pytest.raises(ModelNotFoundError, match=r"has no such file \(ONNX files: .*onnx/model_fp16.onnx"):
        load(repository, onnx_file="model_int8")
    with pytest.raises(ModelLoadError, match=r"holds no model_q4.onnx"):
        load(repository, onnx_file="model_q4", auto_download=False)


def test_a_file_that_arrives_damaged_is_refused(repository, hub):
    hub.fail(Fault("*/onnx/model.onnx", flip=True, times=None))
    with pytest.raises(ModelLoadError, match="arrived twice with a different"):
        load(repository)
    assert not (Settings().open_cache().ensure(repository) / "onnx").exists()


def test_weights_are_not_fetched_for_an_onnx_file_and_come_when_they_are_needed(repository, hub):
    cache = Settings().open_cache()
    with load(repository) as service:
        expected = service.embed(["Hello, world!"])
    (model,) = cache.list()
    assert not (model.path / "model.safetensors").exists()
    assert not [request for request in hub.requests if request.path.endswith("model.safetensors")]
    assert cache.verify() == {model.name: ()}
    with EmbeddingService(repository, device="cpu", auto_download=False) as service:  # auto takes what is there
        assert service.get_model_info()["backend"] == "onnx"
        assert service.embed(["Hello, world!"]) == expected
    with pytest.raises(ModelNotFoundError, match=r"without its weights.+akidb-mlx pull org/with-onnx@"):
        EmbeddingService(repository, device="cpu", backend="mlx", auto_download=False)
    with EmbeddingService(repository, device="cpu", backend="mlx") as service:
        assert service.get_model_info()["backend"] == "mlx"
    (model,) = cache.list()
    assert (model.path / "model.safetensors").is_file() and (model.path / "onnx/model.onnx").is_file()
    assert cache.verify() == {model.name: ()}
    (model.path / "model.safetensors").write_bytes(b"x")
    assert cache.verify() == {model.name: ("model.safetensors",)}


def test_a_repository_of_onnx_files_alone_can_be_used(hub, tmp_path):
    directory = with_model(tmp_path, table_model(), file="model.onnx")
    (directory / "model.safetensors").unlink()
    hub.add("org/only-onnx", directory)
    with pytest.raises(ModelNotFoundError, match=r'not a supported model.+can be used with backend="onnx"'):
        EmbeddingService("org/only-onnx", device="cpu")
    with load("org/only-onnx") as service:
        assert service.get_model_info()["backend"] == "onnx"
        assert len(service.embed(["a"])) == 1
    with EmbeddingService("org/only-onnx", device="cpu") as service:
        assert service.get_model_info()["backend"] == "onnx"
    with pytest.raises(ModelNotFoundError, match="not a supported model"):
        EmbeddingService("org/only-onnx", device="cpu", backend="mlx")
    (model,) = Settings().open_cache().list()
    assert Settings().open_cache().verify() == {model.name: ()}
