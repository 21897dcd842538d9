"""Sparse vectors equal SparseEncoder's on tiny random models; the facade SparseEmbedder, its options and refusals."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from akidb_mlx import (
    EmbeddingService,
    ModelPool,
    MultiVectorEmbedder,
    Reranker,
    Settings,
    SparseBatch,
    SparseEmbedder,
)
from akidb_mlx.checkpoint.sparse import read_sparse
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelLoadError,
    ServiceClosedError,
)
from akidb_mlx.reports import TextModelInfo
from akidb_mlx.sparse.vectors import finish_rows, similarity
from akidb_mlx.vectors import SPARSE
from benchmarks.quantize import quantize
from model_cache.files import find_missing
from tests.odd_values import read_odd_versions
from tests.support import GOLDENS, LONGEST, TEXTS, copy_model, edit_json, edit_tensors, golden

MODELS = sorted(path.stem for path in GOLDENS.glob("sparse-*.npz"))
ROLES = ("query", "document")
# The models that add up the weights of up to 128 tokens, and their errors.
SUMS = ("sparse-bert-untied", "sparse-modernbert")
LONG = "the ledger of the ship " * 80


@pytest.fixture(scope="module")
def sparse():
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = SparseEmbedder(GOLDENS / name, device="cpu")
        return loaded[name]

    yield get
    for one in loaded.values():
        one.close()


def embed(one, role, texts, **options):
    return (one.embed_queries if role == "query" else one.embed_documents)(texts, **options)


def expected(name, role):
    """Return the texts of a golden, and the reference's vectors of them as a dense matrix."""
    stored = golden(name)
    offsets = stored[f"{role}_offsets"]
    dense = np.zeros((len(offsets) - 1, 615), np.float32)
    rows = np.repeat(np.arange(len(dense)), np.diff(offsets))
    dense[rows, stored[f"{role}_indices"]] = stored[f"{role}_values"]
    return [TEXTS[i] for i in stored["texts"]], dense


def error(found, wanted):
    """Return the largest difference, of large weights by their size."""
    return (np.abs(found - wanted) / np.maximum(1, wanted)).max()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", MODELS)
def test_vectors_equal_the_references(sparse, name, role):
    texts, dense = expected(name, role)
    batch = embed(sparse(name), role, texts)
    assert error(batch.to_dense(), dense) <= (3e-5 if name in SUMS else 1e-5)
    assert np.array_equal(batch.offsets, golden(name)[f"{role}_offsets"])
    assert np.array_equal(batch.indices, golden(name)[f"{role}_indices"])


@pytest.mark.parametrize("name", MODELS)
def test_similarities_equal_the_references(sparse, name):
    one, texts = sparse(name), expected(name, "query")[0]
    found = one.similarity(one.embed_queries(texts[:5]), one.embed_documents(texts[5:9]))
    wanted = golden(name)["similarity"]
    assert found.dtype == np.float32 and found.shape == (5, 4)
    assert np.abs(found - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("name", MODELS)
def test_a_text_has_the_same_vector_alone(sparse, name):
    one, texts = sparse(name), expected(name, "document")[0]
    together = one.embed_documents(texts)
    alone = np.concatenate([one.embed_documents([text]).to_dense() for text in texts])
    assert error(together.to_dense(), alone) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_the_way_of_a_gpu(name, precision, tolerance):
    with SparseEmbedder(GOLDENS / name, device="cpu", settings=Settings(precision=precision)) as one:
        for role in ROLES:
            texts, dense = expected(name, role)
            found = embed(one, role, texts).to_dense()
            if (most := one.embed_documents(texts[:1]).values).size == 24:  # the last of the largest may be others
                assert most.size == 24
                continue
            assert np.abs(found - dense).max() < tolerance * max(1, dense.max())


def test_logits_in_blocks_are_the_same(monkeypatch):
    """As for a long text on a GPU, whose logits would take gigabytes."""
    monkeypatch.setattr("akidb_mlx.backends.mlx.sparse._MAX_LOGITS", 615 * 7)
    for name in ("sparse-bert", "sparse-modernbert"):
        with SparseEmbedder(GOLDENS / name, device="cpu") as one:
            texts, dense = expected(name, "document")
            found = one.embed_documents(texts).to_dense()
            assert error(found, dense) <= 3e-5


@pytest.mark.parametrize("name", ["sparse-bert", "sparse-modernbert"])
def test_a_quantised_model(tmp_path, name):
    quantize(GOLDENS / name, tmp_path / "4bit", bits=8, group_size=32)
    with SparseEmbedder(tmp_path / "4bit", device="cpu") as one:
        assert one.get_model_info()["quantization"] == "8-bit affine, group 32"
        texts, dense = expected(name, "document")
        exact = one.embed_documents(texts).to_dense()
        assert np.abs(exact - dense).max() < 0.1 * max(1, dense.max())
    with SparseEmbedder(tmp_path / "4bit", device="cpu", settings=Settings(precision="bfloat16")) as one:
        assert np.abs(one.embed_documents(texts).to_dense() - exact).max() < 0.1 * max(1, dense.max())


# Results


def test_a_batch_is_compressed_sparse_rows(sparse):
    one = sparse("sparse-bert")
    batch = one.embed_documents(TEXTS[:3])
    assert (batch.indices.dtype, batch.values.dtype, batch.offsets.dtype) == (np.int32, np.float32, np.int64)
    assert len(batch) == 3 and len(list(batch)) == 3 and len(batch[1:]) == 2
    assert batch.dimension == one.dimension == 615
    for index, vector in enumerate(batch):
        assert np.array_equal(vector.indices, np.flatnonzero(batch.to_dense()[index]))
        assert (np.diff(vector.indices) > 0).all() and (vector.values > 0).all()
    assert np.array_equal(batch[-1].values, batch[2].values)
    with pytest.raises(IndexError):
        batch[3]
    assert repr(batch).startswith("<SparseBatch of 3 texts by ") and len(repr(batch)) < 400


def test_nothing_gives_nothing(sparse):
    one = sparse("sparse-bert")
    batch = one.embed_documents([])
    assert (len(batch), batch.values.shape, batch.to_dense().shape) == (0, (0,), (0, 615))
    assert one.similarity(batch, one.embed_queries(["a"])).shape == (0, 1)
    assert one.similarity(one.embed_queries(["a"]), batch).shape == (1, 0)


def test_similarity_by_hand():
    def batch(*rows):
        entries = [entry for row in rows for entry in row]
        return SparseBatch(
            np.array([index for index, _ in entries], np.int32),
            np.array([value for _, value in entries], np.float32),
            np.cumsum([0, *map(len, rows)]),
            10,
            [],
            [],
            "m",
        )

    queries = batch([(1, 2.0), (4, 1.0)], [], [(9, 3.0)])
    documents = batch([], [(1, 3.0)], [], [(4, 4.0), (9, 0.5)], [])
    assert similarity(queries, documents, "dot").tolist() == [[0, 6, 0, 4, 0], [0] * 5, [0, 0, 0, 1.5, 0]]
    cosines = similarity(queries, documents, "cosine")
    assert cosines[0] == pytest.approx([0, 2 / 5**0.5, 0, 4 / (5 * 16.25) ** 0.5, 0])
    assert np.isfinite(cosines).all()
    with pytest.raises(InvalidInputError, match="SparseBatch, found ndarray"):
        similarity(queries, np.zeros((1, 10)), "dot")


def test_tokens_are_decoded_in_the_order_of_their_weights(sparse):
    one = sparse("sparse-bert")
    batch = one.embed_documents(TEXTS[:2])
    vocabulary = json.loads((GOLDENS / "sparse-bert/tokenizer.json").read_text())["model"]["vocab"]
    decoded = one.decode(batch)
    for tokens, vector in zip(decoded, batch, strict=True):
        assert [weight for _, weight in tokens] == sorted(vector.values.tolist(), reverse=True)
        assert {vocabulary[token] for token, _ in tokens} == set(vector.indices.tolist())
    assert one.decode(batch[0], top_k=3) == decoded[0][:3]
    assert one.decode(batch, 2) == [tokens[:2] for tokens in decoded]
    for wrong in (0, -1, 1.5, True, "3"):
        with pytest.raises(InvalidInputError, match="top_k"):
            one.decode(batch, wrong)
    with pytest.raises(InvalidInputError, match="found list"):
        one.decode([1, 2])


def test_only_the_largest_weights_are_kept(sparse):
    one = sparse("sparse-bert")
    full = one.embed_documents(TEXTS)
    few = one.embed_documents(TEXTS, max_active_dims=5)
    for kept, vector in zip(few, full, strict=True):
        assert len(kept.values) == min(5, len(vector.values))
        assert sorted(kept.values) == sorted(vector.values)[-5:]
        assert set(kept.indices) <= set(vector.indices) and (np.diff(kept.indices) > 0).all()
    assert np.diff(sparse("sparse-bert-untied").embed_documents(TEXTS).offsets).max() == 24  # as its files say
    assert np.diff(sparse("sparse-bert-untied").embed_documents(TEXTS, max_active_dims=30).offsets).max() == 30


# Options


@pytest.mark.parametrize("role", ROLES)
def test_prompts_are_those_of_the_files(sparse, role):
    one = sparse("sparse-bert")
    prompt = {"query": "query: ", "document": "a document: "}[role]
    texts = TEXTS[:4]
    default = embed(one, role, texts).to_dense()
    assert np.array_equal(default, embed(one, role, [prompt + text for text in texts], prompt="").to_dense())
    assert np.array_equal(default, embed(one, role, texts, prompt=prompt).to_dense())
    assert np.abs(default - embed(one, role, texts, prompt="").to_dense()).max() > 1e-3


def test_a_long_text_is_cut_and_reported(sparse):
    one = sparse("sparse-bert-plain")
    batch = one.embed_documents(["short", LONG])
    assert batch.truncated == [False, True]
    assert batch.token_counts[1] == one.max_tokens == 128
    with pytest.raises(InvalidInputError, match=r"text 1 has .* tokens and the model takes 128") as failure:
        one.embed_documents(["short", LONG], on_overflow="error")
    assert failure.value.index == 1


def test_a_chunked_text_has_the_largest_weights_of_its_windows(sparse):
    one = sparse("sparse-bert-plain")
    text = f"{LONG} Berlin is the capital of Germany. {LONG}"
    chunked = one.embed_documents([text, "short"], on_overflow="chunk")
    assert chunked.truncated == [False, False] and chunked.token_counts[0] > one.max_tokens
    cut, whole = one.embed_documents([text, "short"]).to_dense(), chunked.to_dense()
    assert (whole >= cut - 1e-6).all() and (whole[0] > cut[0] + 1e-6).any()
    assert np.abs(whole[1] - cut[1]).max() < 1e-5
    with pytest.raises(InvalidInputError, match="this model adds weights up"):
        sparse("sparse-modernbert").embed_documents(["a"], on_overflow="chunk")


def test_windows_by_hand():
    def row(*entries):
        return np.array(list(entries), SPARSE)

    rows = [row((1, 2.0), (5, 1.0)), row((1, 3.0)), row(), row((2, -4.0), (7, 1.0), (8, 2.0))]
    first, second, third = finish_rows(rows, [2, 1, 1], 2, 0)
    assert first.tolist() == [(1, 3.0), (5, 1.0)]
    assert second.tolist() == []
    assert third.tolist() == [(2, -4.0), (8, 2.0)]
    with pytest.raises(InferenceError, match="text 8") as failure:
        finish_rows([row((1, 1.0)), row((1, np.nan))], [1, 1], None, 7)
    assert failure.value.index == 8


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("on_overflow", "drop"), ("timeout", -1), ("prompt", 7), ("prompt", "\ud800")),
        *(("max_active_dims", 0), ("max_active_dims", True), ("max_active_dims", 1.5)),
    ],
)
def test_a_bad_option_is_named(sparse, option, value):
    with pytest.raises(InvalidInputError, match=option):
        sparse("sparse-bert").embed_documents(["a"], **{option: value})


def test_unknown_options_are_refused_by_name(sparse):
    with pytest.raises(TypeError, match="unknown option normalize; known: prompt, on_overflow, timeout"):
        sparse("sparse-bert").embed_queries(["a"], normalize=True)


@pytest.mark.parametrize(("texts", "index"), [(["a", 7], 1), (["a", "\ud800"], 1), ("a string", None), (None, None)])
def test_bad_texts_are_named(sparse, texts, index):
    with pytest.raises(InvalidInputError) as failure:
        sparse("sparse-bert").embed_documents(texts)
    assert failure.value.index == index


def test_a_query_without_a_token_has_no_weights_to_look_up(sparse):
    with pytest.raises(InvalidInputError, match="text 1 yields no token") as failure:
        sparse("sparse-distilbert-static").embed_queries(["a", "  "])
    assert failure.value.index == 1


def test_a_table_of_weights_needs_no_encoder(sparse):
    """Each token that a query holds has its weight, however often it holds it."""
    one = sparse("sparse-distilbert-static")
    weights = load_file(GOLDENS / "sparse-distilbert-static/query_0_SparseStaticEmbedding/model.safetensors")["weight"]
    once, often = one.embed_queries(["the ledger", "ledger the the ledger the"])
    assert np.array_equal(once.indices, often.indices) and np.array_equal(once.values, often.values)
    assert np.array_equal(once.values, weights[once.indices])


# Its place beside other calls


def test_the_timeout_is_one_for_the_whole_call(sparse):
    with pytest.raises(DeadlineExceededError):
        sparse("sparse-bert").embed_documents(TEXTS, timeout=1e-9)
    assert len(sparse("sparse-bert").embed_documents(TEXTS, timeout=60)) == len(TEXTS)


def test_asyncio_and_futures(sparse):
    one = sparse("sparse-bert")
    for role, call in (("query", one.aembed_queries), ("document", one.aembed_documents)):
        wanted = embed(one, role, TEXTS).to_dense()
        assert np.abs(asyncio.run(call(TEXTS)).to_dense() - wanted).max() < 1e-5
        assert np.abs(one.submit(TEXTS, role).result(60).to_dense() - wanted).max() < 1e-5


def test_equal_texts_are_computed_once(sparse):
    one = sparse("sparse-bert")
    before = one.get_metrics()
    batch = one.embed_documents(["the same text"] * 9)
    after = one.get_metrics()
    assert after["sequences"] - before["sequences"] == 1
    assert after["texts"] - before["texts"] == 9
    assert all(np.array_equal(vector.values, batch[0].values) for vector in batch)


def test_health_information_and_the_end():
    one = SparseEmbedder(GOLDENS / "sparse-distilbert", device="cpu")
    assert one.health_check() == {"status": "ok", "reason": "ready", "engine": "ready"}
    info = one.get_model_info()
    assert set(info) == set(TextModelInfo.__annotations__)
    assert (info["dimension"], info["max_tokens"], info["architecture"]) == (615, 128, "distilbert")
    assert repr(one).endswith("se-distilbert': 615 dimensions, ready>")
    one.close()
    one.close()
    with pytest.raises(ServiceClosedError, match="create a new SparseEmbedder"):
        one.embed_documents(["a"])
    assert one.health_check()["status"] == "failed"


def test_arguments_are_checked_before_files_are_read():
    with pytest.raises(ConfigurationError, match="device"):
        SparseEmbedder("nowhere/at-all", device="tpu")
    with pytest.raises(ConfigurationError, match="backend"):
        SparseEmbedder("nowhere/at-all", backend="torch")
    with pytest.raises(InvalidInputError, match="model_name"):
        SparseEmbedder(7)


# Refusals


def refusal(directory, load=SparseEmbedder):
    with pytest.raises(ModelLoadError) as failure:
        load(str(directory), device="cpu").close()
    return str(failure.value)


@pytest.mark.parametrize("name", ["sparse-bert", "sparse-bert-plain", "sparse-roberta", "sparse-modernbert"])
def test_an_embedding_service_names_the_class_for_a_sparse_model(name):
    assert "use akidb_mlx.SparseEmbedder" in refusal(GOLDENS / name, EmbeddingService)


def test_other_classes_name_each_other():
    assert "use akidb_mlx.SparseEmbedder" in refusal(GOLDENS / "sparse-bert", Reranker)
    assert "use akidb_mlx.EmbeddingService" in refusal(GOLDENS / "tiny-bert")
    assert "use akidb_mlx.Reranker" in refusal(GOLDENS / "reranker-bert")
    assert "use akidb_mlx.Reranker" in refusal(GOLDENS / "reranker-bert-labels")
    assert "splade-v3 is a sparse model, and not an embedding model" in refusal("splade-v3", EmbeddingService)
    assert "minilm-l6-v2 is an embedding model, and not a sparse model" in refusal("minilm-l6-v2")


def test_heads_that_are_pickles_are_not_loaded(tmp_path):
    """As bge-m3's, which stays a dense model."""
    directory = copy_model("tiny-bert", tmp_path)
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        (directory / name).write_bytes(b"a pickle")
    for load in (SparseEmbedder, MultiVectorEmbedder):
        assert "sparse_linear.pt and colbert_linear.pt are pickles, which are never loaded" in refusal(directory, load)
    with EmbeddingService(str(directory), device="cpu") as dense:
        assert np.array_equal(dense.embed_array(["a"]).shape, (1, 64))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "pooling_strategy 'mean'"),
        ("1_SpladePooling/config.json", {"activation_function": "softplus"}, "activation_function 'softplus'"),
        ("1_SpladePooling/config.json", {"threshold": 1}, "threshold = 1"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "euclidean"}, "similarity_fn_name 'euclidean'"),
        ("config_sentence_transformers.json", {"max_active_dims": 0}, "max_active_dims"),
        ("config_sentence_transformers.json", {"truncate_dim": 7}, "truncate_dim = 7"),
        ("config_sentence_transformers.json", {"model_type": "Other"}, "model_type = 'Other'"),
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "transformer_task"),
        ("sentence_bert_config.json", {"query_expansion": {"length": 7}}, "query_expansion"),
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "encode"}}}, "method"),
        ("config.json", {"tie_word_embeddings": False}, "cls.predictions.decoder.weight"),
        ("config.json", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ("config.json", {"model_type": "qwen3"}, ""),
    ],
)
def test_what_the_files_ask_for_and_is_not_done_is_refused_by_name(tmp_path, file, changes, words):
    directory = copy_model("sparse-bert", tmp_path)
    edit_json(directory / file, **changes)
    assert words in refusal(directory)


@pytest.mark.parametrize(
    "file",
    [
        *("modules.json", "router_config.json", "config_sentence_transformers.json"),
        *("document_1_SpladePooling/config.json", "query_0_SparseStaticEmbedding/config.json"),
        "document_0_Transformer/sentence_bert_config.json",
    ],
)
def test_odd_values_are_refused_or_mean_nothing(tmp_path, file):
    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "sparse-distilbert-static", directory)
    assert read_odd_versions(directory / file, lambda: read_sparse(directory)) >= 10


def test_other_modules_are_refused_by_name(tmp_path):
    directory = copy_model("sparse-bert", tmp_path)
    path = directory / "modules.json"
    modules = json.loads(path.read_text())
    library = "sentence_transformers.sparse_encoder.modules"
    sae = {"idx": 2, "name": "2", "path": "2_SAE", "type": f"{library}.sparse_auto_encoder.SparseAutoEncoder"}
    path.write_text(json.dumps([*modules, sae]))
    assert "SparseAutoEncoder (CSR), which is not supported" in refusal(directory)
    path.write_text(json.dumps(modules[:1]))
    assert "lists Transformer; supported in a sparse model" in refusal(directory)


def test_a_head_that_is_not_whole_is_refused(tmp_path):
    directory = copy_model("sparse-bert", tmp_path)

    def without(name):
        shutil.copy(GOLDENS / "sparse-bert/model.safetensors", directory)
        edit_tensors(
            directory / "model.safetensors", lambda tensors: {k: v for k, v in tensors.items() if not k.endswith(name)}
        )
        return refusal(directory)

    assert "cls.predictions.bias is missing" in without("cls.predictions.bias")
    assert "it has no cls.predictions.transform.dense.weight" in without("transform.dense.weight")
    assert "cls.predictions.transform.LayerNorm.weight is missing" in without("transform.LayerNorm.weight")


def test_a_tied_bias_under_its_other_name(tmp_path):
    """The two names mean the same tensor where the output is tied, as transformers reads it."""
    directory = copy_model("sparse-bert", tmp_path)

    def rename(tensors):
        return {k.replace("predictions.bias", "predictions.decoder.bias"): v for k, v in tensors.items()}

    edit_tensors(directory / "model.safetensors", rename)
    with SparseEmbedder(directory, device="cpu") as one:
        texts, dense = expected("sparse-bert", "document")
        assert np.abs(one.embed_documents(texts).to_dense() - dense).max() <= 1e-5
    edit_json(directory / "config.json", tie_word_embeddings=False)
    assert "cls.predictions.decoder.weight" in refusal(directory)


def test_an_output_of_another_size_is_refused(tmp_path):
    """A table of weights of that size would be written beyond its end."""
    directory = copy_model("sparse-bert-untied", tmp_path)

    def cut(tensors):
        short = {name: array[:600] for name, array in tensors.items() if name.startswith("cls.predictions.decoder.")}
        return tensors | short

    edit_tensors(directory / "model.safetensors", cut)
    assert "cls.predictions.decoder.weight has shape (600, 16), expected (615, 16)" in refusal(directory)


def test_berts_other_head_is_passed_over(tmp_path):
    """Models that were trained for masked words and for pairs of sentences have both."""
    directory = copy_model("sparse-bert", tmp_path)
    other = {
        "cls.seq_relationship.weight": np.ones((2, 32), np.float32),
        "bert.pooler.dense.bias": np.ones(32, np.float32),
    }
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors | other)
    with SparseEmbedder(directory, device="cpu") as one:
        texts, dense = expected("sparse-bert", "document")
        assert error(one.embed_documents(texts).to_dense(), dense) <= 1e-5


def test_biases_of_modernbert_must_be_as_its_files_say(tmp_path):
    directory = copy_model("sparse-modernbert", tmp_path)
    edit_json(directory / "config.json", classifier_bias=False)
    assert "classifier_bias is False, and head.dense.bias says otherwise" in refusal(directory)


def test_a_router_over_other_modules_is_refused(tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "sparse-distilbert-static", directory)
    weights = directory / "query_0_SparseStaticEmbedding/model.safetensors"
    weights.with_name("config.json").write_text('{"path": "idf.json"}')
    assert "weights are read from model.safetensors only" in refusal(directory)
    weights.with_name("config.json").write_text("{}")
    save_file({"weight": np.ones(614, np.float32)}, weights)
    assert "different vocabularies, of [614, 615] tokens" in refusal(directory)
    save_file({"weight": np.ones((615, 2), np.float32)}, weights)
    assert "must hold one vector" in refusal(directory)


def test_weights_that_are_damaged_are_noticed(tmp_path):
    directory = copy_model("sparse-bert", tmp_path)

    def spoil(tensors):
        tensors["cls.predictions.bias"][3] = np.inf
        return tensors

    edit_tensors(directory / "model.safetensors", spoil)
    assert "not finite" in refusal(directory)


# The cache


def static_files():
    """The files of a model with a table for queries, by name."""
    root = GOLDENS / "sparse-distilbert-static"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_model_of_routes_is_fetched(hub):
    hub.add("org/routed", static_files() | {"query_0_SparseStaticEmbedding/pytorch_model.bin": b"a pickle"})
    with SparseEmbedder("org/routed", device="cpu") as one:
        texts, dense = expected("sparse-distilbert-static", "query")
        assert np.abs(one.embed_queries(texts).to_dense() - dense).max() <= 1e-5
        assert not list(Path(one.get_model_info()["path"]).rglob("*.bin"))


def test_a_model_whose_documents_encoder_lies_at_the_top(hub):
    """As its publisher has it who added a Router to a model that was there."""
    folder = "document_0_Transformer"
    files = {name.removeprefix(f"{folder}/"): content for name, content in static_files().items()}
    files["router_config.json"] = files["router_config.json"].replace(folder.encode(), b"")
    hub.add("org/routed", files)
    with SparseEmbedder("org/routed", device="cpu") as one:
        for role in ROLES:
            texts, dense = expected("sparse-distilbert-static", role)
            assert np.abs(embed(one, role, texts).to_dense() - dense).max() <= 1e-5


def test_the_classes_of_older_files(tmp_path):
    """A model that was saved before sentence-transformers 5.4 names MLMTransformer, which has no task."""
    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "sparse-distilbert-static", directory)
    path = directory / "router_config.json"
    path.write_text(
        path.read_text().replace("base.modules.transformer.Transformer", "sparse_encoder.models.MLMTransformer")
    )
    (directory / "document_0_Transformer/sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    with SparseEmbedder(directory, device="cpu") as one:
        for role in ROLES:
            texts, dense = expected("sparse-distilbert-static", role)
            assert error(embed(one, role, texts).to_dense(), dense) <= 1e-5


def test_a_model_of_routes_that_is_not_whole_is_damaged(tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "sparse-distilbert-static", directory)
    assert find_missing(directory) == []
    for name in ("query_0_SparseStaticEmbedding/tokenizer.json", "document_0_Transformer/model.safetensors"):
        (directory / name).unlink()
        assert name in find_missing(directory)


def test_a_pool_holds_sparse_models():
    name = str(GOLDENS / "sparse-bert")
    with ModelPool(load=lambda name: SparseEmbedder(name, device="cpu")) as pool, pool.use(name) as one:
        assert len(one.embed_documents(TEXTS)) == len(TEXTS)


def test_the_longest_text_is_cut_somewhere(sparse):
    assert sparse("sparse-bert").embed_documents(TEXTS).truncated[LONGEST]
