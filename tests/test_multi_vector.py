"""Vectors of tokens equal MultiVectorEncoder's on tiny random models; the facade, its options and refusals."""

import asyncio
import json
import logging

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, MultiVectorEmbedder, Reranker, Settings, SparseEmbedder
from akidb_mlx.checkpoint.multi_vector import read_multi_vector
from akidb_mlx.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelLoadError,
    ServiceClosedError,
)
from akidb_mlx.multi_vector import vectors as scoring
from akidb_mlx.multi_vector.vectors import max_similarity
from akidb_mlx.reports import TextModelInfo
from benchmarks.quantize import quantize
from tests.odd_values import read_odd_versions
from tests.support import GOLDENS, LONGEST, TEXTS, copy_model, edit_json, edit_tensors, golden

MODELS = sorted(path.stem for path in GOLDENS.glob("colbert-*.npz"))
ROLES = ("query", "document")
LONG = "the ledger of the ship " * 80


@pytest.fixture(scope="module")
def colbert():
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = MultiVectorEmbedder(GOLDENS / name, device="cpu")
        return loaded[name]

    yield get
    for one in loaded.values():
        one.close()


def embed(one, role, texts, **options):
    return (one.embed_queries if role == "query" else one.embed_documents)(texts, **options)


def difference(batch, name, role):
    """Return the largest difference to a golden, once each text has as many vectors."""
    stored = golden(name)
    assert np.array_equal(np.cumsum([0, *map(len, batch)]), stored[f"{role}_offsets"])
    return np.abs(np.concatenate(list(batch)) - stored[role]).max()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", MODELS)
def test_vectors_equal_the_references(colbert, name, role):
    assert difference(embed(colbert(name), role, TEXTS), name, role) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_the_references(colbert, name):
    one = colbert(name)
    found = one.similarity(one.embed_queries(TEXTS[:5]), one.embed_documents(TEXTS[5:9]))
    assert found.dtype == np.float32 and found.shape == (5, 4)
    assert np.abs(found - golden(name)["similarity"]).max() <= 2e-5


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", MODELS)
def test_a_text_has_the_same_vectors_alone(colbert, name, role):
    one = colbert(name)
    for text, together in zip(TEXTS, embed(one, role, TEXTS), strict=True):
        (alone,) = embed(one, role, [text])
        assert alone.shape == together.shape
        assert np.abs(alone - together).max() <= 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_the_way_of_a_gpu(name, precision, tolerance):
    with MultiVectorEmbedder(GOLDENS / name, device="cpu", settings=Settings(precision=precision)) as one:
        for role in ROLES:
            largest = max(1, np.abs(golden(name)[role]).max())
            assert difference(embed(one, role, TEXTS), name, role) < tolerance * largest


@pytest.mark.parametrize("name", ["colbert-bert", "colbert-modernbert"])
def test_a_quantised_model(tmp_path, name):
    quantize(GOLDENS / name, tmp_path / "8bit", bits=8, group_size=32)
    with MultiVectorEmbedder(tmp_path / "8bit", device="cpu") as one:
        assert one.get_model_info()["quantization"] == "8-bit affine, group 32"
        assert difference(one.embed_documents(TEXTS), name, "document") < 0.1


# Results


def test_a_batch_is_a_list_of_matrices(colbert):
    one = colbert("colbert-bert")
    batch = one.embed_documents(TEXTS[:3])
    assert len(batch) == len(list(batch)) == len(batch.vectors) == 3 and len(batch[1:]) == 2
    assert batch.dimension == one.dimension == 16
    assert all(vectors.dtype == np.float32 and vectors.shape[1:] == (16,) for vectors in batch)
    assert np.abs(np.linalg.norm(np.concatenate(batch.vectors), axis=1) - 1).max() < 1e-5
    assert repr(batch).startswith("<MultiVectorBatch of 3 texts by ") and len(repr(batch)) < 400
    # A row that the engine computed beside others does not keep those.
    assert all(vectors.base is None for vectors in batch)


def test_nothing_gives_nothing(colbert):
    one = colbert("colbert-bert")
    assert len(one.embed_documents([])) == 0
    assert one.similarity(one.embed_queries([]), one.embed_documents(["a"])).shape == (0, 1)
    assert one.similarity(one.embed_queries(["a"]), one.embed_documents([])).shape == (1, 0)


def test_scores_by_hand(monkeypatch):
    queries = [np.array([[1, 0], [0, 1]], np.float32), np.array([[-1, 0]], np.float32)]
    documents = [np.array([[2, 3]], np.float32), np.array([[5, 0], [0, 7], [1, 1]], np.float32)] * 2
    wanted = [[5, 12, 5, 12], [-2, 0, -2, 0]]
    assert max_similarity(queries, documents, mean=False).tolist() == wanted
    assert max_similarity(queries, documents, mean=True).tolist() == [[2.5, 6, 2.5, 6], [-2, 0, -2, 0]]
    monkeypatch.setattr(scoring, "_MAX_PRODUCTS", 8)  # so that documents are compared in blocks
    assert max_similarity(queries, documents, mean=False).tolist() == wanted


@pytest.mark.parametrize(
    "documents", [[np.zeros((0, 2))], [np.zeros(2)], [np.zeros((1, 3))], [np.zeros((1, 2)), np.zeros((2, 2, 2))]]
)
def test_what_is_no_matrix_of_vectors_is_refused(documents):
    with pytest.raises(InvalidInputError, match=r"documents must be matrices|cannot be compared"):
        max_similarity([np.ones((1, 2), np.float32)], documents, mean=False)


# Queries and documents


def test_queries_are_expanded_to_one_length(colbert):
    one = colbert("colbert-bert")
    batch = one.embed_queries(["short", LONG])
    assert [len(vectors) for vectors in batch] == [24, 24]
    assert batch.truncated == [False, True]
    assert batch.token_counts[0] < 24 and batch.token_counts[1] == 24
    assert [len(vectors) for vectors in colbert("colbert-modernbert-min").embed_queries(["short", LONG])] == [30, 100]
    assert len(colbert("colbert-roberta").embed_queries([LONG])[0]) == 16


def test_a_query_does_not_see_what_expands_it(colbert):
    """So its own vectors are those of a document with the same tokens."""
    one = colbert("colbert-modernbert-min")
    (query,), (document,) = one.embed_queries(["who keeps ledgers"]), one.embed_documents(["who keeps ledgers"])
    assert len(query) == 30 > len(document)
    assert np.abs(query[: len(document)] - document).max() < 1e-5


def test_queries_of_other_lengths_share_a_batch(colbert):
    one = colbert("colbert-bert")
    texts = [f"{'word ' * count}end" for count in range(1, 12)]
    before = one.get_metrics()["batches"]
    one.embed_queries(texts)
    assert one.get_metrics()["batches"] - before <= len(texts) / 2


def test_punctuation_of_documents_is_left_out(colbert):
    one = colbert("colbert-bert")
    texts = ["the ledger", "the ( ledger ) . !"]
    plain, marked = one.embed_documents(texts)
    assert plain.shape == marked.shape and np.abs(plain - marked).max() > 1e-3
    assert one.embed_documents(texts).token_counts[1] == one.embed_documents(texts).token_counts[0] + 4
    both = colbert("colbert-modernbert")
    assert len(both.embed_queries(["the ledger . the"])[0]) < 12  # where queries lose tokens too


def test_a_skip_list_names_tokens_that_are_passed_over(caplog):
    with caplog.at_level(logging.WARNING), MultiVectorEmbedder(GOLDENS / "colbert-modernbert", device="cpu"):
        assert "has no token no such token of the skip list" in caplog.text


@pytest.mark.parametrize(("name", "marker"), [("colbert-pylate", "[Q] "), ("colbert-stanford", "[unused0] ")])
def test_a_marker_is_one_token(colbert, name, marker):
    """Its tokenizer would take it apart, as the file has it."""
    one = colbert(name)
    words = one.embed_queries(["ledger"], prompt="").token_counts[0]
    batch = one.embed_queries(["ledger"])
    assert batch.token_counts[0] == words + 1
    assert np.abs(batch[0] - one.embed_queries([f"{marker}ledger"], prompt="")[0]).max() < 1e-6


@pytest.mark.parametrize("role", ROLES)
def test_prompts_are_those_of_the_files(colbert, role):
    one = colbert("colbert-bert")
    prompt = {"query": "[Q] ", "document": "[D] "}[role]
    default, same, without = (embed(one, role, ["the ledger"], prompt=given)[0] for given in (None, prompt, ""))
    assert np.array_equal(default, same)
    assert default.shape != without.shape or np.abs(default - without).max() > 1e-3


def test_a_long_document_is_cut_and_reported(colbert):
    one = colbert("colbert-bert")
    batch = one.embed_documents(["short", LONG])
    assert batch.truncated == [False, True] and batch.token_counts[1] == 60
    assert one.embed_documents(TEXTS).truncated[LONGEST]
    with pytest.raises(InvalidInputError, match=r"text 1 has .* tokens and the model takes 60") as failure:
        one.embed_documents(["short", LONG], on_overflow="error")
    assert failure.value.index == 1
    with pytest.raises(InvalidInputError, match="the model takes 24"):
        one.embed_queries(["short", LONG], on_overflow="error")


@pytest.mark.parametrize(
    ("option", "value"),
    [("on_overflow", "drop"), ("on_overflow", "chunk"), ("timeout", -1), ("prompt", 7), ("prompt", "\ud800")],
)
def test_a_bad_option_is_named(colbert, option, value):
    with pytest.raises(InvalidInputError, match=option):
        colbert("colbert-bert").embed_documents(["a"], **{option: value})


def test_unknown_options_are_refused_by_name(colbert):
    with pytest.raises(TypeError, match="unknown option max_active_dims; known: prompt, on_overflow, timeout"):
        colbert("colbert-bert").embed_queries(["a"], max_active_dims=3)


@pytest.mark.parametrize(("texts", "index"), [(["a", 7], 1), (["a", "\ud800"], 1), ("a string", None), (None, None)])
def test_bad_texts_are_named(colbert, texts, index):
    with pytest.raises(InvalidInputError) as failure:
        colbert("colbert-bert").embed_documents(texts)
    assert failure.value.index == index


# Its place beside other calls


def test_the_timeout_is_one_for_the_whole_call(colbert):
    with pytest.raises(DeadlineExceededError):
        colbert("colbert-bert").embed_documents(TEXTS, timeout=1e-9)
    assert len(colbert("colbert-bert").embed_documents(TEXTS, timeout=60)) == len(TEXTS)


def test_asyncio_and_futures(colbert):
    one = colbert("colbert-bert")
    for role, call in (("query", one.aembed_queries), ("document", one.aembed_documents)):
        assert difference(asyncio.run(call(TEXTS)), "colbert-bert", role) <= 1e-5
        assert difference(one.submit(TEXTS, role).result(60), "colbert-bert", role) <= 1e-5


def test_a_failing_pass_is_run_again(colbert, monkeypatch):
    """As for an embedding service: the engine knows nothing of the rows' shapes."""
    from akidb_mlx.backends.mlx.model import DeviceStep

    fails = [True]
    result = DeviceStep.result

    def fail_once(step):
        if fails:
            fails.pop()
            raise RuntimeError("the device failed")
        return result(step)

    monkeypatch.setattr(DeviceStep, "result", fail_once)
    assert difference(colbert("colbert-bert").embed_queries(TEXTS), "colbert-bert", "query") <= 1e-5
    assert not fails


def test_a_vector_that_is_not_finite_names_its_text(colbert):
    one = colbert("colbert-bert")
    row = np.ones((24, 16), np.float32)
    row[2, 3] = np.nan
    with pytest.raises(InferenceError, match="text 5") as failure:
        one._finish(row, np.array([2, 9, 3], np.int32), "query", 5)
    assert failure.value.index == 5


def test_health_information_and_the_end():
    one = MultiVectorEmbedder(GOLDENS / "colbert-stanford", device="cpu")
    assert one.health_check() == {"status": "ok", "reason": "ready", "engine": "ready"}
    info = one.get_model_info()
    assert set(info) == set(TextModelInfo.__annotations__)
    assert (info["dimension"], info["max_tokens"], info["prompts"]) == (16, 50, ["document", "query"])
    assert repr(one).endswith(": 16 dimensions, ready>")
    one.close()
    one.close()
    with pytest.raises(ServiceClosedError, match="create a new MultiVectorEmbedder"):
        one.embed_documents(["a"])


# Refusals


def refusal(directory, load=MultiVectorEmbedder):
    with pytest.raises(ModelLoadError) as failure:
        load(str(directory), device="cpu").close()
    return str(failure.value)


@pytest.mark.parametrize("name", ["colbert-bert", "colbert-pylate", "colbert-stanford"])
def test_an_embedding_service_names_the_class_for_a_multi_vector_model(name):
    assert "use akidb_mlx.MultiVectorEmbedder" in refusal(GOLDENS / name, EmbeddingService)


def test_other_classes_name_each_other():
    assert "use akidb_mlx.MultiVectorEmbedder" in refusal(GOLDENS / "colbert-bert", SparseEmbedder)
    assert "use akidb_mlx.MultiVectorEmbedder" in refusal(GOLDENS / "colbert-bert", Reranker)
    assert "use akidb_mlx.SparseEmbedder" in refusal(GOLDENS / "sparse-bert")
    assert "use akidb_mlx.EmbeddingService" in refusal(GOLDENS / "tiny-bert")
    assert "use akidb_mlx.Reranker" in refusal(GOLDENS / "reranker-bert-labels")
    assert "is a multi-vector model, and not an embedding model" in refusal("lateon", EmbeddingService)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "module_input_name"),
        ("1_Dense/config.json", {"activation_function": "torch.nn.Softmax"}, "activation torch.nn.Softmax"),
        ("1_Dense/config.json", {"out_features": 17}, "out_features is 17"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [7]}, "keep_only_token_ids"),
        ("2_MultiVectorMask/config.json", {"skiplist_words": "!"}, "skiplist_words"),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": [7]}, "skiplist_tasks"),
        ("3_Normalize/config.json", {"module_input_name": "sentence_embedding"}, "module_input_name"),
        ("config_sentence_transformers.json", {"truncate_dim": 7}, "truncate_dim = 7"),
        ("config_sentence_transformers.json", {"query_prefix": 7}, "query_prefix"),
        ("sentence_bert_config.json", {"document_length": 0}, "document_length"),
        ("sentence_bert_config.json", {"query_length": 7}, "query_length 7 is less"),
        ("sentence_bert_config.json", {"query_expansion": 7}, "query_expansion"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed", "length": 999}}, "from 1 to 128"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "max", "length": 9}}, "strategy"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "min", "length": 9, "pad": 1}}, "pad = 1"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 7}}}, "processing_kwargs"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "min", "length": 9, "token": "[nothing]"}},
            "no token '[nothing]'",
        ),
    ],
)
def test_what_the_files_ask_for_and_is_not_done_is_refused_by_name(tmp_path, file, changes, words):
    directory = copy_model("colbert-bert", tmp_path)
    edit_json(directory / file, **changes)
    assert words in refusal(directory)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("colbert-bert", "modules.json"),
        ("colbert-bert", "config_sentence_transformers.json"),
        ("colbert-bert", "sentence_bert_config.json"),
        ("colbert-bert", "1_Dense/config.json"),
        ("colbert-bert", "2_MultiVectorMask/config.json"),
        ("colbert-bert", "3_Normalize/config.json"),
        ("colbert-pylate", "config_sentence_transformers.json"),
        ("colbert-stanford", "artifact.metadata"),
    ],
)
def test_odd_values_are_refused_or_mean_nothing(tmp_path, name, file):
    directory = copy_model(name, tmp_path)
    assert read_odd_versions(directory / file, lambda: read_multi_vector(directory)) >= 10


def test_a_modules_file_that_is_missing_is_named(tmp_path):
    directory = copy_model("colbert-bert", tmp_path)
    (directory / "1_Dense/model.safetensors").rename(directory / "1_Dense/pytorch_model.bin")
    assert "1_Dense/model.safetensors is missing: weights are read from safetensors files only" in refusal(directory)


def test_other_modules_are_refused_by_name(tmp_path):
    directory = copy_model("colbert-bert", tmp_path)
    path = directory / "modules.json"
    modules = json.loads(path.read_text())
    pooling = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling"
    path.write_text(json.dumps([*modules, {"idx": 4, "name": "4", "path": "4_Pooling", "type": pooling}]))
    assert "HierarchicalTokenPooling; supported in a multi-vector model" in refusal(directory)
    path.write_text(json.dumps([module for module in modules if "Mask" not in module["type"]]))
    assert "lists no MultiVectorMask" in refusal(directory)


def test_an_expansion_that_a_window_hides_is_refused(tmp_path):
    """An appended token beyond the window of a layer would see nothing, and what it is then nobody defined."""
    directory = copy_model("colbert-modernbert-min", tmp_path)
    expansion = {"strategy": "min", "attend": False, "length": 34}
    edit_json(directory / "sentence_bert_config.json", query_expansion=expansion)
    assert "every token sees a whole query" in refusal(directory)
    edit_json(directory / "sentence_bert_config.json", query_expansion=expansion | {"attend": True})
    with MultiVectorEmbedder(directory, device="cpu") as one:
        assert len(one.embed_queries(["a"])[0]) == 34


def test_a_projection_that_is_missing_is_refused(tmp_path):
    directory = copy_model("colbert-stanford", tmp_path)
    edit_tensors(
        directory / "model.safetensors", lambda tensors: {k: v for k, v in tensors.items() if k != "linear.weight"}
    )
    assert "linear.weight is missing" in refusal(directory)


def test_files_of_older_pylate(tmp_path):
    """They name no kind of model, and no skip list: it is then punctuation."""
    directory = copy_model("colbert-pylate", tmp_path)
    path = directory / "config_sentence_transformers.json"
    config = json.loads(path.read_text())
    del config["model_type"], config["skiplist_words"]
    path.write_text(json.dumps(config))
    with MultiVectorEmbedder(directory, device="cpu") as one:
        for role in ROLES:
            assert difference(embed(one, role, TEXTS), "colbert-pylate", role) <= 1e-5
    assert "use akidb_mlx.MultiVectorEmbedder" in refusal(directory, EmbeddingService)


def test_the_settings_of_colberts_own_program_are_fetched(hub):
    hub.add("org/colbert", GOLDENS / "colbert-stanford")
    with MultiVectorEmbedder("org/colbert", device="cpu") as one:
        for role in ROLES:
            assert difference(embed(one, role, TEXTS), "colbert-stanford", role) <= 1e-5
