"""Asymmetric models whose Router leads to encoders of their own: which one reads a text, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, MultiVectorEmbedder, Reranker, SparseEmbedder
from akidb_mlx.backends.towers import TowersModel
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.engine.backend import TokenRows
from akidb_mlx.errors import InvalidInputError, ModelLoadError, ModelNotFoundError
from akidb_mlx.loading import load_model
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.settings import Settings
from model_cache.errors import CorruptModelError
from model_cache.files import find_incomplete, list_names
from model_cache.kinds import ROUTED, kind_of
from tests.support import GOLDENS, TEXTS, edit_json, edit_tensors, golden

NAME = "towers-bert-qwen3"
QUERY, DOCUMENT = "query_0_Transformer", "document_0_Transformer"


def load(directory=GOLDENS / NAME, **options) -> EmbeddingService:
    return EmbeddingService(str(directory), device="cpu", **options)


def copy(tmp_path):
    return Path(shutil.copytree(GOLDENS / NAME, tmp_path / NAME))


def refusal(directory) -> str:
    with pytest.raises((ModelLoadError, ModelNotFoundError)) as caught:
        load(directory)
    return str(caught.value)


def test_each_role_has_the_vectors_of_the_reference():
    expected = golden(NAME)
    with load() as one:
        for role in ("query", "document", None):
            vectors = one.embed_array(TEXTS, input_type=role)
            assert np.abs(vectors - expected[role or "none"]).max() <= 2e-5, role


def test_texts_of_both_towers_run_in_the_same_steps():
    expected = golden(NAME)
    with load() as one:
        with device_lock:
            calls = [(role, one.submit(TEXTS, input_type=role)) for role in ("query", "document") * 3]
        for role, call in calls:
            assert np.abs(call.result(60).vectors - expected[role]).max() <= 2e-5, role


def test_a_text_is_cut_where_its_own_tower_ends():
    """The query tower reads 20 tokens, the other one 128."""
    long = "the ledger of ships " * 8
    with load() as one:
        query, document = (one.embed_detailed([long], input_type=role) for role in ("query", "document"))
        assert (query.token_counts, query.truncated) == ([20], [True])
        assert document.token_counts[0] > 30
        assert document.truncated == [False]
        with pytest.raises(InvalidInputError, match=r"text 0 .* 20"):
            one.embed([long], input_type="query", on_overflow="error")
        chunked = one.embed_detailed([long], input_type="query", on_overflow="chunk")
        assert chunked.token_counts[0] > 30
        assert one.max_tokens == 20


def test_the_report_covers_both_towers():
    with load() as one:
        info = one.get_model_info()
        alone = sum((GOLDENS / NAME / folder / "model.safetensors").stat().st_size for folder in (QUERY, DOCUMENT))
    assert info["architecture"] == "bert; qwen3"
    assert info["pooling"] == "mean; last"
    assert info["pooling_source"] == "query_1_Pooling/config.json; document_1_Pooling/config.json"
    assert info["path"] == str(GOLDENS / NAME)
    assert info["weight_bytes"] > 0.8 * alone


def test_padding_never_lengthens_a_batch_beyond_its_tower():
    """Lengths may be rounded up to what the larger tower takes."""
    model = load_model(read_checkpoint(GOLDENS / NAME), "cpu", Settings())
    try:
        assert isinstance(model, TowersModel)
        lengths = np.array([20], np.int32)
        rows = TokenRows(np.ones((1, 24), np.int32), lengths, np.empty(0, np.int32), route="query")
        fitting = TokenRows(np.ones((1, 20), np.int32), lengths, np.empty(0, np.int32), route="query")
        with device_lock:
            padded, plain = (model.start([one]).result()[0] for one in (rows, fitting))
        assert np.abs(padded - plain).max() <= 1e-6
    finally:
        model.close()


def test_one_encoder_may_serve_both_routes(tmp_path):
    directory = copy(tmp_path)
    path = directory / "router_config.json"
    router = json.loads(path.read_text())
    router["structure"]["document"] = router["structure"]["query"]
    path.write_text(json.dumps(router))
    assert len(read_checkpoint(directory).towers) == 1
    with load(directory) as one:
        vectors = one.embed_array(TEXTS[:9], input_type="document", prompt=None)
    assert np.abs(vectors - golden(NAME)["none"][:9]).max() > 1e-2
    with load(directory) as one:
        vectors = one.embed_array(TEXTS[:9], input_type="query")
    assert np.abs(vectors - golden(NAME)["query"][:9]).max() <= 2e-5


def test_vectors_of_different_sizes_are_refused(tmp_path):
    directory = copy(tmp_path)
    edit_json(directory / "query_2_Dense/config.json", out_features=24)
    edit_tensors(directory / "query_2_Dense/model.safetensors", lambda ts: {name: t[:24] for name, t in ts.items()})
    assert "routes have different sizes (query: 24, document: 32)" in refusal(directory)


def test_towers_that_are_loaded_are_closed_when_another_cannot_be():
    closed = []

    def fail():
        raise ModelLoadError("its weights are damaged")

    tower = SimpleNamespace(facts=None, close=lambda: closed.append("query"))
    with pytest.raises(ModelLoadError, match="damaged"):
        TowersModel({("query",): lambda: tower, ("document",): fail}, "a model")
    assert closed == ["query"]


@pytest.mark.parametrize(
    "missing", [f"{QUERY}/config.json", f"{DOCUMENT}/tokenizer.json", f"{QUERY}/model.safetensors", "modules.json"]
)
def test_a_missing_file_is_named(tmp_path, missing):
    directory = copy(tmp_path)
    assert find_incomplete(directory) == []
    (directory / missing).unlink()
    assert find_incomplete(directory) == [missing]


def test_cut_weights_are_found(tmp_path):
    directory = copy(tmp_path)
    path = directory / DOCUMENT / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert find_incomplete(directory) == [f"{DOCUMENT}/model.safetensors"]


def test_a_malformed_router(tmp_path):
    directory = copy(tmp_path)
    (directory / "router_config.json").write_text("[]")
    with pytest.raises(CorruptModelError, match="is not that of a Router"):
        find_incomplete(directory)
    assert "must hold" in refusal(directory) or "must be" in refusal(directory)


def test_the_hub_is_asked_for_such_a_model():
    names = list_names(GOLDENS / NAME)
    assert kind_of(names) is ROUTED
    assert ROUTED.matches(names)
    assert not ROUTED.matches([name for name in names if not name.endswith("safetensors")])


def test_unknown_keys_of_a_tower_are_refused_with_its_folder(tmp_path):
    directory = copy(tmp_path)
    edit_json(directory / DOCUMENT / "config.json", rope_parameters={"rope_type": "unheard_of"})
    assert f"{DOCUMENT}: config.json: rotary positions of type 'unheard_of'" in refusal(directory)


def test_a_tower_of_another_kind_is_refused_by_name(tmp_path):
    directory = copy(tmp_path)
    path = directory / "router_config.json"
    path.write_text(path.read_text().replace("transformer.Transformer", "static.StaticEmbedding"))
    assert "lists StaticEmbedding, Pooling" in refusal(directory)


@pytest.mark.parametrize("loader", [Reranker, SparseEmbedder, MultiVectorEmbedder])
def test_other_classes_name_the_one_that_loads_towers(loader):
    with pytest.raises(ModelLoadError, match=r"use akidb_mlx\.EmbeddingService"):
        loader(GOLDENS / NAME, device="cpu")


@pytest.mark.parametrize("loader", [EmbeddingService, Reranker, MultiVectorEmbedder])
def test_a_routed_sparse_model_is_named(loader):
    with pytest.raises(ModelLoadError, match=r"use akidb_mlx\.SparseEmbedder"):
        loader(GOLDENS / "sparse-distilbert-static", device="cpu")


def test_a_tower_alone_may_leave_its_prompt_out(tmp_path):
    """The other tower's Pooling counts all tokens; both are as in a model of one encoder."""
    directory, alone = copy(tmp_path), tmp_path / "alone"
    prompts = {"query": "the ledger of ships: ", "document": "harbour: "}
    edit_json(directory / "config_sentence_transformers.json", prompts=prompts)
    shutil.copytree(directory / QUERY, alone)
    shutil.copytree(directory / "query_1_Pooling", alone / "1_Pooling")
    shutil.copy(directory / "config_sentence_transformers.json", alone)
    shutil.copytree(directory / "query_2_Dense", alone / "2_Dense")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for path, kind in kinds.items()]
    (alone / "modules.json").write_text(json.dumps(modules))
    before = {}
    with load(directory) as towers:
        for role in prompts:
            before[role] = towers.embed_array(TEXTS[:5], input_type=role)
    for pooling in (directory / "query_1_Pooling", alone / "1_Pooling"):
        edit_json(pooling / "config.json", include_prompt=False)
    with load(directory) as towers, load(alone) as single:
        found = {role: towers.embed_array(TEXTS[:5], input_type=role) for role in prompts}
        expected = single.embed_array(TEXTS[:5], input_type="query")
    assert np.abs(found["query"] - expected).max() <= 1e-6
    assert np.abs(found["query"] - before["query"]).max() > 1e-3
    assert np.array_equal(found["document"], before["document"])


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_the_way_of_a_gpu(precision, tolerance):
    with load(settings=Settings(precision=precision)) as one:
        for role in ("query", "document"):
            difference = np.abs(one.embed_array(TEXTS, input_type=role) - golden(NAME)[role]).max()
            assert 1e-6 < difference < tolerance, role
