"""Static models against model2vec and sentence-transformers, and all that a call may ask of them."""

import asyncio
import json
import threading

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.static_tokenizer import StaticTokenizer
from akidb_mlx.errors import DeadlineExceededError, InvalidInputError, ModelLoadError, ServiceOverloadedError
from model_cache.files import find_missing, select_needed
from model_cache.kinds import kind_of
from tests.static_models import FORMS, ROWS, SIZE, StaticForm, model2vec, truncation
from tests.support import GOLDENS, TEXTS, edit_json

with np.load(GOLDENS / "static.npz") as arrays:
    REFERENCE = dict(arrays)
# float16 tables: the references average in float32 and round to float16, which is not done here.
TOLERANCE = {"float16": 1e-3, "static float16": 1e-3}
WORDS = ["the", "harbour", "word", "ledger", "crew"]


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    opened = {}

    def get(name: str) -> EmbeddingService:
        if name not in opened:
            opened[name] = EmbeddingService(str(FORMS[name].make(tmp_path_factory.mktemp("static"))))
        return opened[name]

    yield get
    for service in opened.values():
        service.close()


def make(form: StaticForm, directory) -> EmbeddingService:
    return EmbeddingService(str(form.make(directory)))


@pytest.mark.parametrize("key", REFERENCE)
def test_vectors_are_the_references(services, key):
    name, _, prompt = key.partition("/")
    service, expected = services(name), REFERENCE[key]
    expected = expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    readable = np.flatnonzero(expected.any(axis=1) & np.isfinite(expected).all(axis=1))
    assert len(readable) > 30
    found = service.embed_array([TEXTS[i] for i in readable], input_type=None if prompt == "none" else prompt)
    assert np.abs(found - expected[readable]).max() <= TOLERANCE.get(name, 2e-6)


@pytest.mark.parametrize("name", ["float32", "mapping", "unigram", "static"])
def test_a_text_without_tokens_is_refused_by_index(services, name):
    """The references give it a vector of zeros."""
    service = services(name)
    empty = np.flatnonzero(~REFERENCE[f"{name}/none"].any(axis=1))
    assert len(empty)
    for text in [TEXTS[i] for i in empty]:
        for policy in ("truncate", "error", "chunk"):
            with pytest.raises(InvalidInputError, match="text 2 yields no token") as caught:
                service.embed(["a", "b", text], on_overflow=policy)
            assert caught.value.index == 2
            with pytest.raises(InvalidInputError, match="text 1 yields no token"):
                service.submit(["a", text], on_overflow=policy)
            with pytest.raises(InvalidInputError, match="text 1 yields no token"):
                asyncio.run(service.aembed(["a", text], on_overflow=policy))


def test_every_form_has_a_reference():
    assert {key.partition("/")[0] for key in REFERENCE} == set(FORMS)


def test_what_a_service_says_of_a_static_model(services):
    found = services("int8").get_model_info()
    assert (found["architecture"], found["dimension"], found["max_tokens"]) == ("model2vec", SIZE, 512)
    assert (found["quantization"], found["precision"]) == ("int8", "float32")
    assert (found["backend"], found["device"]) == ("numpy", "cpu")
    assert (found["pooling"], found["weight_bytes"], found["matryoshka"]) == ("mean", ROWS * SIZE, False)
    found = services("static").get_model_info()
    assert (found["architecture"], found["max_tokens"], found["prompts"]) == (
        "static",
        2**31 - 1,
        ["document", "query"],
    )
    assert services("mapping").get_model_info()["weight_bytes"] == 4 * (90 * SIZE + ROWS)


@pytest.mark.parametrize(
    ("name", "kept"), [("short", slice(7)), ("static right", slice(9)), ("static left", slice(-9, None))]
)
def test_a_text_that_is_cut_says_so(services, name, kept):
    service, long = services(name), list("abcdefghijk")[: 10 if name == "short" else 11]
    batch = service.embed_detailed(["the", " ".join(long), " ".join(long[kept])])
    assert batch.truncated == [False, True, False]
    assert batch.token_counts == [1, len(long[kept]), len(long[kept])]
    assert np.abs(batch.vectors[1] - batch.vectors[2]).max() < 1e-6
    with pytest.raises(InvalidInputError, match=f"text 1 has {len(long)} tokens and the model takes {len(long[kept])}"):
        service.embed(["the", " ".join(long)], on_overflow="error")


def test_model2vec_cuts_by_characters_too(services):
    """At 7 times the vocabulary's median length of 3; the text has fewer tokens, and is cut nevertheless."""
    text = "harbour master kept every vessel"
    batch = services("short").embed_detailed([text, text[:21]])
    assert batch.truncated == [True, False]
    assert np.abs(batch.vectors[0] - batch.vectors[1]).max() < 1e-6
    whole = services("short").embed_detailed([text], on_overflow="error")
    assert whole.truncated == [False]
    assert np.abs(whole.vectors - batch.vectors[:1]).max() > 1e-3


def test_unknown_words_are_left_out_by_model2vec_only(services):
    known, mixed = "the crew", "the \u4e00 crew \u4e01"
    for name, differs in (("float32", False), ("static", True)):
        service = services(name)
        batch = service.embed_detailed([known, mixed])
        assert bool(np.abs(batch.vectors[0] - batch.vectors[1]).max() > 1e-3) == differs
        assert batch.token_counts == [2, 4 if differs else 2]


def test_a_chunked_text_is_read_whole(services):
    long = " ".join(WORDS * 4)
    service = services("short")
    batch = service.embed_detailed(["the", long], on_overflow="chunk")
    assert (batch.token_counts, batch.truncated) == ([1, 20], [False, False])
    # Windows of 7 tokens, of which none is shared; together they are longer than what is read of one text.
    parts = [" ".join((WORDS * 4)[start : start + 7]) for start in (0, 7, 14)]
    windows = service.embed_array(parts, on_overflow="error")
    average = np.average(windows, axis=0, weights=[7, 7, 6])
    assert np.abs(batch.vectors[1] - average / np.linalg.norm(average)).max() < 1e-6


def test_a_long_text_and_many_short_ones(services):
    """Long texts are summed on their own, and one with more tokens than a batch in blocks."""
    service = services("static")
    table = FORMS["static"].tensors["embedding.weight"]
    tokenizer = StaticTokenizer(read_checkpoint(service._checkpoint.directory))
    texts = [" ".join(WORDS * count) for count in (1, 600, 1, 9000, 102, 103, 2)]
    read = tokenizer.pack(texts, "", "truncate")
    ends = np.cumsum(read.lengths)
    expected = np.stack([table[ids].mean(axis=0, dtype=np.float64) for ids in np.split(read.ids, ends[:-1])])
    found = service.embed_array(texts, normalize=False)
    assert np.abs(found - expected).max() < 1e-5
    assert read.token_counts == [5, 3000, 5, 45000, 510, 515, 10]


def test_options_of_a_call(services):
    service = services("float32")
    raw = service.embed_array(WORDS, normalize=False)
    assert np.abs(raw - FORMS["float32"].tensors["embeddings"][[193, 244, 200, 239, 233]]).max() < 1e-6
    assert np.abs(service.embed_array(["crew"], prompt="the ") - service.embed_array(["the crew"])).max() == 0
    assert service.embed([]) == []
    with pytest.raises(InvalidInputError, match="dimensions"):
        service.embed(["a"], dimensions=4)


def test_callers_share_batches_and_get_their_own_vectors(services):
    service = services("float32")
    alone = {word: service.embed_array([word])[0] for word in WORDS}
    futures = [service.submit([word] * count) for count, word in enumerate(WORDS * 40, 1)]
    for future, word in zip(futures, WORDS * 40, strict=True):
        assert np.abs(future.result(30).vectors - alone[word]).max() < 1e-6


def test_metrics_count_texts_and_tokens(tmp_path):
    with make(FORMS["float32"], tmp_path) as service:
        service.embed(["the crew", "the", "word"])
        found = service.get_metrics()
        assert (found["texts"], found["sequences"], found["tokens"], found["padding_ratio"]) == (3, 3, 4, 0)
        assert found["calls"]["completed"] == 1


def test_bounds_and_deadlines_hold(tmp_path, monkeypatch):
    from akidb_mlx.backends.static import StaticModel

    held, entered = threading.Event(), threading.Event()
    settings, means = Settings(max_queued_requests=2), StaticModel._means

    def hold(*arguments):
        entered.set()
        assert held.wait(30)
        return means(*arguments)

    monkeypatch.setattr(StaticModel, "_means", hold)
    with EmbeddingService(str(FORMS["float32"].make(tmp_path)), settings=settings) as service:
        try:
            service.submit(["the"])
            assert entered.wait(30)
            second = service.submit(["crew"], timeout=1)  # time enough for the next line on a busy machine
            with pytest.raises(ServiceOverloadedError):
                service.submit(["word"])
            threading.Timer(1.2, held.set).start()  # the queue is looked through once the model is free
            with pytest.raises(DeadlineExceededError):
                second.result(30)
        finally:
            held.set()


def test_a_failure_names_no_text_of_a_batch(services, monkeypatch):
    """A failed batch is run again whole: its texts are not told apart."""
    from akidb_mlx.backends.static import StaticModel
    from akidb_mlx.errors import InferenceError

    def fail(*_):
        raise MemoryError("none left")

    monkeypatch.setattr(StaticModel, "_means", fail)
    with pytest.raises(InferenceError, match="the forward pass failed: MemoryError: none left") as caught:
        services("float32").embed(["the", "crew"])
    assert caught.value.index is None
    monkeypatch.undo()
    assert len(services("float32").embed(["the"])) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (StaticForm({"embeddings": np.zeros((ROWS, 4), np.int32)}, model2vec()), "embeddings is stored as I32"),
        (StaticForm({"embeddings": np.zeros(ROWS, np.float32)}, model2vec()), "embeddings must be a matrix"),
        (StaticForm({"vectors": np.zeros((ROWS, 4), np.float32)}, model2vec()), "must have one table"),
        (
            StaticForm({"embeddings": np.ones((9, 4), np.float32), "mapping": np.full(ROWS, 9)}, model2vec()),
            "the mapping names rows that are not in the 9",
        ),
        (
            StaticForm({"embeddings": np.ones((ROWS, 4), np.float32), "weights": np.ones(9, np.float32)}, model2vec()),
            "weights have the shape (9,), and there are 615 tokens",
        ),
        (
            StaticForm({"embeddings": np.ones((ROWS, 4), np.float32), "head": np.ones(9, np.float32)}, model2vec()),
            "head is not part of a static model",
        ),
        (StaticForm({"embeddings": np.ones((9, 4), np.float32)}, model2vec()), "the model has tokens 0 to 8"),
        (StaticForm(FORMS["float32"].tensors, model2vec(max_length=0)), "max_length must be an integer of 1 or more"),
        (StaticForm(FORMS["float32"].tensors, model2vec(head_config={"labels": 2})), "head_config = "),
        (StaticForm(FORMS["float32"].tensors, model2vec(scale=2.0)), "scale = 2.0 is a key that akidb-mlx"),
        (StaticForm(FORMS["static"].tensors, tokenizer=truncation(0, "Right")), "truncation must have a max_length"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, form, message):
    with pytest.raises(ModelLoadError) as caught:
        make(form, tmp_path)
    assert message in str(caught.value)


def test_other_modules_are_named(tmp_path):
    FORMS["static"].make(tmp_path)
    names = ("StaticEmbedding", "Dense", "Normalize")
    modules = [{"type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}"} for i, name in enumerate(names)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match="lists StaticEmbedding, Dense, Normalize; supported: StaticEmbedding"):
        EmbeddingService(str(tmp_path))


def test_the_defaults_of_the_files_are_kept(tmp_path):
    directory = FORMS["static"].make(tmp_path)
    edit_json(directory / "config_sentence_transformers.json", truncate_dim=8)
    with EmbeddingService(str(directory)) as service:
        assert service.get_model_info()["dimension"] == 8
        assert service.embed_array(["the"]).shape == (1, 8)


def test_a_token_without_a_vector_is_refused(tmp_path):
    def add(description):
        token = description["added_tokens"][-1] | {"id": ROWS, "content": "<image>"}
        description["added_tokens"].append(token)

    with make(StaticForm(FORMS["static"].tensors, tokenizer=add), tmp_path) as service:
        with pytest.raises(InvalidInputError, match="text 1 spells '<image>'"):
            service.embed(["the", "a <image>", "crew"])
        assert len(service.embed(["the"])) == 1


@pytest.mark.parametrize("below", ["", "0_StaticEmbedding/"])
def test_the_files_of_a_repository_without_a_config(tmp_path, below):
    names = ["README.md", "config_sentence_transformers.json", "modules.json", "1_Normalize/config.json", "onnx/x.onnx"]
    names += [f"{below}model.safetensors", f"{below}tokenizer.json"]
    assert set(select_needed(names)) == set(names) - {"README.md", "onnx/x.onnx"}
    assert kind_of(names).matches(names)
    # A model that pools token vectors, and has lost its config.json, is none.
    assert not kind_of([*names, "1_Pooling/config.json"]).matches([*names, "1_Pooling/config.json"])
    name = "static folder" if below else "static"
    directory = FORMS[name].make(tmp_path)
    assert find_missing(directory) == []
    (directory / f"{below}tokenizer.json").unlink()
    assert find_missing(directory) == [f"{below}tokenizer.json"]
