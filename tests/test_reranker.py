"""The facade Reranker: order, options, bad input, long pairs, deadlines, and its place beside other calls."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from akidb_mlx import ModelPool, Reranker
from akidb_mlx.checkpoint.pairs import longest_first
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ModelLoadError,
    ServiceClosedError,
)
from akidb_mlx.reranking import RerankerInfo
from akidb_mlx.reranking.scores import finish_scores
from tests.goldens.make_rerankers import pairs
from tests.support import GOLDENS, TEXTS

PAIRS = pairs()
QUERY = "What is the capital?"


@pytest.fixture(scope="module")
def bert():
    with Reranker(GOLDENS / "reranker-bert", device="cpu") as reranker:
        yield reranker


@pytest.fixture(scope="module")
def labels():
    with Reranker(GOLDENS / "reranker-bert-labels", device="cpu") as reranker:
        yield reranker


@pytest.fixture(scope="module")
def qwen3():
    with Reranker(GOLDENS / "reranker-qwen3", device="cpu") as reranker:
        yield reranker


def test_documents_come_in_the_order_of_their_scores(bert):
    scores = bert.scores([(QUERY, text) for text in TEXTS])
    ranked = bert.rerank(QUERY, TEXTS)
    assert [index for index, _ in ranked] == sorted(range(len(TEXTS)), key=lambda index: -scores[index])
    assert [score for _, score in ranked] == [float(scores[index]) for index, _ in ranked]
    assert bert.rerank(QUERY, TEXTS, top_k=3) == ranked[:3]
    assert bert.rerank(QUERY, iter(TEXTS), 99) == ranked


def test_equal_documents_keep_their_order(bert):
    assert [index for index, _ in bert.rerank(QUERY, ["same", "same", "same"])] == [0, 1, 2]


def test_nothing_gives_nothing(bert, labels):
    assert bert.rerank(QUERY, []) == []
    assert bert.scores([]).shape == (0,)
    assert labels.scores([]).shape == (0, 3)
    assert labels.scores([("a", "b")]).dtype == np.float32


def test_the_order_of_a_pair_counts(bert):
    assert abs(np.diff(bert.scores([("one text", "another"), ("another", "one text")]))) > 1e-4


def test_a_separator_in_a_text_does_not_move_the_border(bert):
    """The two have the same tokens, and differ in the types of them only; they run in one batch."""
    first, second = ("a", "b [SEP] c"), ("a [SEP] b", "c")
    together = bert.scores([first, second])
    assert abs(together[0] - together[1]) > 1e-4
    assert np.allclose(together, [bert.scores([first])[0], bert.scores([second])[0]], atol=1e-6)


@pytest.mark.parametrize(
    ("documents", "index"), [(["a", 7], 1), ([None], 0), (["a", "b", "\ud800"], 2), ("a string", None), (7, None)]
)
def test_bad_documents_are_named(bert, documents, index):
    with pytest.raises(InvalidInputError) as failure:
        bert.rerank(QUERY, documents)
    assert failure.value.index == index


@pytest.mark.parametrize("query", [None, 7, b"q", "\ud800"])
def test_a_bad_query_is_refused(bert, query):
    with pytest.raises(InvalidInputError, match="query"):
        bert.rerank(query, ["a"])


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "3"])
def test_a_bad_top_k_is_refused(bert, top_k):
    with pytest.raises(InvalidInputError, match="top_k"):
        bert.rerank(QUERY, ["a"], top_k=top_k)


@pytest.mark.parametrize(
    "pair", ["ab", ("a",), ("a", "b", "c"), ("a", 7), (None, "b"), {"a": 1, "b": 2}, 7, ("a", "\ud800")]
)
def test_a_bad_pair_is_named(bert, pair):
    with pytest.raises(InvalidInputError, match="pair 1") as failure:
        bert.scores([("a", "b"), pair])
    assert failure.value.index == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [("on_overflow", "drop"), ("timeout", -1), ("prompt", 7), ("prompt", "\ud800"), ("prompt_name", "web")],
)
def test_a_bad_option_is_named(bert, option, value):
    with pytest.raises(InvalidInputError, match=option):
        bert.scores([("a", "b")], **{option: value})


def test_unknown_options_are_refused_by_name(bert):
    with pytest.raises(TypeError, match="unknown option instruction; known: prompt_name"):
        bert.scores([], instruction="x")


def test_a_bad_pair_fails_no_other_call(bert):
    alone = bert.scores(PAIRS)
    with ThreadPoolExecutor(4) as threads:
        good = [threads.submit(bert.scores, PAIRS) for _ in range(3)]
        bad = threads.submit(bert.scores, [*PAIRS, ("a", 7)])
        assert all(np.abs(one.result() - alone).max() < 1e-5 for one in good)
        assert bad.exception().index == len(PAIRS)


def test_prompts_are_those_of_the_files(labels):
    pairs = PAIRS[:4]
    default = labels.scores(pairs)
    assert labels.get_model_info()["default_prompt"] == "web"
    assert np.array_equal(default, labels.scores(pairs, prompt_name="web"))
    assert np.array_equal(default, labels.scores(pairs, prompt="query: "))
    assert np.array_equal(
        labels.scores(pairs, prompt_name="news"),
        labels.scores([(f"Which headline fits? {query}", document) for query, document in pairs], prompt=""),
    )
    assert np.abs(default - labels.scores(pairs, prompt="")).max() > 1e-4
    with pytest.raises(InvalidInputError, match="not both"):
        labels.scores(pairs, prompt="a", prompt_name="web")
    with pytest.raises(InvalidInputError, match="news, web"):
        labels.scores(pairs, prompt_name="other")


def test_several_labels_have_no_order(labels):
    with pytest.raises(InvalidInputError, match="gives 3 for each pair: use scores"):
        labels.rerank(QUERY, ["a"])
    with pytest.raises(InvalidInputError, match="with 3 labels none is the best"):
        labels.scores([("a", "b")], on_overflow="chunk")


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_pair_that_is_too_long_is_refused_by_its_index(name, request):
    reranker = request.getfixturevalue(name)
    with pytest.raises(InvalidInputError, match=f"pair 1 has .* tokens and the model takes {reranker.max_tokens}") as f:
        reranker.scores([("a", "b"), ("a", "word " * 300)], on_overflow="error")
    assert f.value.index == 1


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_chunked_document_has_the_score_of_its_best_window(name, request):
    reranker = request.getfixturevalue(name)
    filler = "word " * 300
    documents = [filler, f"{filler}Berlin is the capital of Germany. {filler}", "short"]
    chunked = reranker.score_detailed([(QUERY, text) for text in documents], on_overflow="chunk")
    cut = reranker.scores([(QUERY, text) for text in documents])
    assert chunked.truncated == [False] * 3
    assert chunked.token_counts[1] > reranker.max_tokens
    assert chunked.scores[2] == pytest.approx(cut[2], abs=1e-6)
    # The first window is the text that is cut, so no window is the best with a lower score.
    assert (chunked.scores >= cut - 1e-5).all()
    assert chunked.scores[1] != pytest.approx(cut[1], abs=1e-6)
    assert cut[0] == pytest.approx(cut[1], abs=1e-6)


def test_a_query_that_fills_the_model_cannot_be_chunked(bert):
    with pytest.raises(InvalidInputError, match="pair 0 cannot be chunked"):
        bert.scores([("word " * 300, "word " * 300)], on_overflow="chunk")


def test_the_longer_text_is_cut_first():
    """Worked out by hand: the tokens of a query, of a document, the room, and what is kept of each."""
    for first, second, most, kept in [
        *((2, 3, 9, (2, 3)), (2, 9, 8, (2, 6)), (9, 2, 8, (6, 2)), (9, 9, 8, (4, 4)), (9, 9, 7, (3, 4))),
        *((10, 9, 7, (4, 3)), (3, 9, 7, (3, 4)), (4, 9, 7, (3, 4)), (0, 9, 4, (0, 4)), (9, 0, 4, (4, 0))),
    ]:
        assert longest_first(first, second, most) == kept


def test_cutting_equals_that_of_the_tokenizers_library():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, "a"))
    tokenizer.pre_tokenizer = Whitespace()
    for most in range(1, 12):
        tokenizer.enable_truncation(most, strategy="longest_first")
        for first, second in itertools.product(range(14), repeat=2):
            types = tokenizer.encode("a " * first, "b " * second).type_ids
            if first + second > most:
                assert longest_first(first, second, most) == (types.count(0), types.count(1)), (first, second, most)


def test_max_length_is_a_lower_bound_only():
    with Reranker(GOLDENS / "reranker-bert", device="cpu", max_length=16) as short:
        batch = short.score_detailed([(QUERY, TEXTS[0] * 9)])
        assert batch.token_counts == [16] and batch.truncated == [True]
    for wrong in (0, 65, "9", True):
        with pytest.raises(InvalidInputError, match="max_length must be an integer from 1 to 64"):
            Reranker(GOLDENS / "reranker-bert", device="cpu", max_length=wrong)


def test_a_shared_query_is_computed_once(qwen3):
    texts = [f"document {number}" for number in range(8)]
    before = qwen3.get_metrics()["tokens"]
    scores = qwen3.scores([(QUERY, text) for text in texts])
    computed = qwen3.get_metrics()["tokens"] - before
    alone = [qwen3.score_detailed([(QUERY, text)]) for text in texts]
    assert np.abs(scores - np.concatenate([one.scores for one in alone])).max() < 1e-6
    # A few tokens of each document, and the end of the template; without sharing it is all of each.
    assert computed < sum(one.token_counts[0] for one in alone) / 2


def test_the_timeout_is_one_for_the_whole_call(bert):
    with pytest.raises(DeadlineExceededError):
        bert.scores(PAIRS, timeout=1e-9)
    assert len(bert.scores(PAIRS, timeout=60)) == len(PAIRS)


def test_asyncio(bert):
    expected = bert.rerank(QUERY, TEXTS, 5)
    assert asyncio.run(bert.arerank(QUERY, TEXTS, 5)) == expected


def test_futures(bert):
    future = bert.submit(PAIRS)
    assert np.abs(future.result(60).scores - bert.scores(PAIRS)).max() < 1e-5
    assert repr(future.result()).startswith(f"<ScoreBatch of {len(PAIRS)} pairs by ")
    assert len(repr(future.result())) < 400


def test_health_information_and_the_end():
    reranker = Reranker(GOLDENS / "reranker-xlm-roberta", device="cpu")
    assert reranker.health_check() == {"status": "ok", "reason": "ready", "engine": "ready"}
    info = reranker.get_model_info()
    assert (info["labels"], info["activation"], info["max_tokens"]) == (["LABEL_0"], "Sigmoid", 64)
    assert info["weight_bytes"] > 0 and info["architecture"] == "xlm-roberta"
    assert set(info) == set(RerankerInfo.__annotations__) and info["backend"] == "mlx"
    assert repr(reranker).endswith("r-xlm-roberta': 1 label, ready>")
    reranker.scores(PAIRS)
    assert reranker.get_metrics()["texts"] == len(PAIRS)
    reranker.close()
    reranker.close()
    with pytest.raises(ServiceClosedError, match="create a new Reranker"):
        reranker.scores(PAIRS)
    assert reranker.health_check()["status"] == "failed"


def test_arguments_are_checked_before_files_are_read():
    with pytest.raises(ConfigurationError, match="device"):
        Reranker("nowhere/at-all", device="tpu")
    with pytest.raises(ConfigurationError, match="backend"):
        Reranker("nowhere/at-all", backend="torch")
    with pytest.raises(InvalidInputError, match="model_name"):
        Reranker(7)
    with pytest.raises(InvalidInputError, match="auto_download"):
        Reranker("nowhere/at-all", auto_download=1)


def test_a_pool_holds_rerankers():
    with ModelPool(load=lambda name: Reranker(name, device="cpu")) as pool:
        with pool.use(str(GOLDENS / "reranker-bert")) as reranker:
            assert len(reranker.rerank(QUERY, TEXTS)) == len(TEXTS)
        assert list(pool.loaded()) == [str(GOLDENS / "reranker-bert")]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("Identity", [[-2.0, 1.0]]),
        ("Sigmoid", [[0.119202922, 0.731058579]]),
        ("Tanh", [[-0.96402758, 0.761594156]]),
        ("ReLU", [[0.0, 1.0]]),
        ("Softplus", [[0.126928011, 1.313261688]]),
        ("LogSigmoid", [[-2.126928011, -0.313261688]]),
        ("Softmax", [[0.047425873, 0.952574127]]),
        ("LogSoftmax", [[-3.048587352, -0.048587352]]),
    ],
)
def test_activations(activation, expected):
    logits = np.array([[-2, 1]], np.float32)
    assert np.allclose(finish_scores(logits, [1], activation, 0), expected, atol=1e-7)
    extreme = finish_scores(np.array([[-500, 500]], np.float32), [1], activation, 0)
    assert np.isfinite(extreme).all()


@pytest.mark.parametrize(
    ("name", "problem"),
    [("minilm-l6-v2", "use akidb_mlx.EmbeddingService"), ("splade-v3", "use akidb_mlx.SparseEmbedder")],
)
def test_a_name_of_the_catalogue_for_another_task(name, problem):
    with pytest.raises(ModelLoadError, match=problem):
        Reranker(name)
