"""Summaries out of the messages' own sentences."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ServiceClosedError
from akidb_mlx.summarization import Summarizer
from akidb_mlx.summarization.extractive import choose
from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import count_words, first_words

ROOT = Path(__file__).parent.parent
# Real prose of some length.
LONG_TEXTS = [ROOT / "LICENSE", ROOT / "docs" / "macos.md"]


def split(text):
    return [text[one.start : one.end] for one in SentenceSplitter()(text)]


@pytest.fixture(scope="module")
def tiny(service):
    with Summarizer(embedder=service("tiny-bert")) as one:
        yield one


@pytest.fixture(scope="module")
def real(minilm):
    with Summarizer(embedder=minilm) as one:
        yield one


def unit(*rows):
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_diversity_by_hand():
    """The second sentence is nearly the first: the third, though less central, goes before it.

    The last is beside the point, and is not taken even where there is room.
    """
    vectors = unit([1, 0.2], [1, 0.25], [0.35, 1], [-1, 0.1])
    weights = np.array([2, 2, 2, 0.1], np.float32)
    words = np.array([5, 5, 5, 5])
    assert choose(vectors, weights, words, 10) == [1, 2]
    assert choose(vectors, weights, words, 99) == [1, 2, 0]
    assert choose(vectors, weights, words, 4) == []
    assert choose(vectors, np.array([1, 1, 9, 1], np.float32), words, 5) == [2]


def test_what_does_not_fit_is_passed_over():
    vectors = unit([1, 0.1], [0.9, 0.4], [0.6, 0.9], [-1, 0])
    assert choose(vectors, np.ones(4, np.float32), np.array([20, 20, 6, 6]), 10) == [2]


def test_few_words_only_where_nothing_else_fits():
    vectors = unit([1, 0], [0, 1])
    assert choose(vectors, np.array([9, 1], np.float32), np.array([2, 8]), 10) == [1]
    assert choose(vectors, np.array([1, 9], np.float32), np.array([2, 8]), 7) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_equals_the_definition(seed):
    """Written down from the papers, one number at a time."""
    random = np.random.default_rng(seed)
    vectors = unit(*random.normal(size=(30, 8)) + 1)
    words = random.integers(4, 20, 30)
    cosine = [[float(a @ b) for b in vectors] for a in vectors]
    norm = float(np.linalg.norm(vectors.sum(axis=0)))
    central = [sum(row) / norm for row in cosine]
    likely = [i for i in range(30) if central[i] >= sum(central) / 30]
    chosen, left = [], 60
    while fits := [i for i in likely if i not in chosen and words[i] <= left]:
        best = max(fits, key=lambda i: 0.7 * central[i] - 0.3 * max((cosine[i][j] for j in chosen), default=0.0))
        chosen.append(best)
        left -= words[best]
    assert choose(vectors, np.ones(30, np.float32), words, 60) == chosen


def taken(summary, text):
    """The sentences of a text that a summary is made of, in the text's order; None where it holds anything else."""
    return _taken(summary, split(text))


def _taken(summary, sentences):
    if not summary:
        return []
    for index, sentence in enumerate(sentences):
        # A sentence may begin another, as the "|" of a table does.
        if summary.startswith(sentence):
            rest = _taken(summary[len(sentence) :].lstrip(), sentences[index + 1 :])
            if rest is not None:
                return [sentence, *rest]
    return None


def cosine_to_whole(service, text, summary):
    whole, part = service.embed_array([text, summary], on_overflow="chunk")
    return float(whole @ part)


@pytest.mark.parametrize("path", LONG_TEXTS, ids=lambda path: path.name)
def test_a_real_long_text(real, minilm, path):
    text = path.read_text(encoding="utf-8")
    summary = real.summarize([text], max_words=100)
    assert 60 <= count_words(summary) <= 100
    assert len(taken(summary, text)) > 2
    lead = first_words(text, 100)
    assert cosine_to_whole(minilm, text, summary) > cosine_to_whole(minilm, text, lead)


def test_it_finds_what_a_text_is_about(real):
    text = (
        "The weather was fine. Photosynthesis lets plants turn sunlight into sugar. A dog barked somewhere. Leaves "
        "hold chlorophyll, which takes up the light that photosynthesis needs. Sugar from photosynthesis feeds the "
        "whole plant. My cousin likes trains. Plants give off oxygen while they make sugar from light."
    )
    summary = real.summarize(text, max_words=30)
    assert "hotosynthesis" in summary
    assert not re.search("dog|cousin|weather", summary)


def test_short_input_is_returned_whole(tiny):
    assert tiny.summarize([]) == ""
    assert tiny.summarize(["", " \n"]) == ""
    assert tiny.summarize(["  One short message.  "]) == "One short message."
    assert tiny.summarize(["One.", {"content": "Two,\n  indented."}]) == "One.\nTwo,\n  indented."


def test_speakers_are_named_where_there_are_several(tiny):
    talk = [{"role": "Ada", "content": "It rains."}, {"role": "Ben", "content": "Yes. It does."}]
    assert tiny.summarize(talk) == "Ada: It rains.\nBen: Yes. It does."
    assert tiny.summarize([talk[0], {"role": "Ada", "content": "Still."}]) == "It rains.\nStill."


def test_speakers_and_order_of_a_long_talk(tiny):
    talk = [
        {"name": f"Speaker{i % 3}", "content": f"Statement number {i} is about item {i * 7}. It has a second part {i}."}
        for i in range(60)
    ]
    summary = tiny.summarize(talk, max_words=50)
    assert 30 <= count_words(summary) <= 50
    numbers = []
    for line in summary.split("\n"):
        speaker, said = line.split(": ", 1)
        (number,) = {i for i in range(60) if all(sentence in talk[i]["content"] for sentence in split(said))}
        assert speaker == talk[number]["name"]
        numbers.append(number)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("max_words", [1, 3, 7, 20])
def test_a_sentence_that_is_too_long_is_cut(tiny, max_words):
    text = "This one sentence has " + "very " * 40 + "many words"
    summary = tiny.summarize([{"role": "Ada", "content": text}, {"role": "Ben", "content": text}], max_words=max_words)
    assert text.startswith(summary)
    assert count_words(summary) == max_words


def test_scripts_without_spaces(tiny):
    text = "今天天气很好。我们去公园散步吧。" + "".join(f"第{i}个公园里有很多花和树木。" for i in range(30))
    summary = tiny.summarize(text, max_words=40)
    assert 20 <= count_words(summary) <= 40
    assert len(taken(summary, text)) >= 2
    assert " " not in summary


def test_a_thousand_messages(tiny):
    messages = [f"Message {i} says that parcel {i} has left the depot {i % 7}." for i in range(1000)]
    summary = tiny.summarize(messages, max_words=60)
    assert count_words(summary) <= 60
    lines = summary.split("\n")
    assert lines == sorted(lines, key=messages.index)


TWO_MEGABYTES = pytest.mark.parametrize(
    "text",
    ["The same sentence again and again. " * 57_000, "x" * 2_000_000, "Line with no end\n" * 117_000],
    ids=["one sentence", "one word", "lines"],
)


@TWO_MEGABYTES
def test_two_megabytes(tiny, text):
    summary = tiny.summarize(text, max_words=30)
    assert summary
    assert summary in text
    assert count_words(summary) <= 30


@pytest.mark.timing
@TWO_MEGABYTES
def test_the_time_of_two_megabytes(tiny, text):
    """Not the square of their sentences: 57 000 sentences compared with each other would take hours."""
    start = time.perf_counter()
    tiny.summarize(text, max_words=30)
    assert time.perf_counter() - start < 60


def test_a_batch_equals_one_by_one(tiny):
    talks = [[f"Talk {i} about item {j}, which is number {i + j}." for j in range(20)] for i in range(4)] + [[], ["x"]]
    assert tiny.summarize_batch(talks, max_words=30) == [tiny.summarize(talk, max_words=30) for talk in talks]
    assert tiny.summarize_batch([]) == []


def test_stream_and_progress(tiny):
    messages = [f"Message {i} is one of many that are not equal." for i in range(1100)]
    steps = []
    pieces = list(tiny.stream(messages, max_words=20, progress=lambda done, total: steps.append((done, total))))
    assert pieces == [tiny.summarize(messages, max_words=20)]
    assert steps == [(0, 1100), (1024, 1100), (1100, 1100)]


@pytest.mark.parametrize("max_words", [0, -1, 1.5, "9", True, None])
def test_max_words_that_are_refused(tiny, max_words):
    with pytest.raises(InvalidInputError, match="max_words must be an integer of 1 or more"):
        tiny.summarize(["a"], max_words=max_words)


def test_a_bad_message_is_named(tiny):
    with pytest.raises(InvalidInputError, match="message 1 must be a string") as caught:
        tiny.summarize(["a", 7])
    assert caught.value.index == 1
    with pytest.raises(InvalidInputError, match="message 0"):
        tiny.stream([None])  # before anything is asked of the result


def test_info_health_and_closing(minilm):
    del minilm  # skips where the weights are not installed
    summarizer = Summarizer(device="cpu")
    info = summarizer.get_model_info()
    assert (info["mode"], info["model_name"], info["status"]) == ("extractive", "minilm-l6-v2", "ready")
    assert summarizer.health_check() == {"status": "ok", "reason": "ready"}
    summarizer.close()
    summarizer.close()
    assert summarizer.get_model_info()["status"] == "closed"
    assert summarizer.health_check()["status"] == "failed"
    with pytest.raises(ServiceClosedError, match="create a new Summarizer"):
        summarizer.summarize(["a"])


def test_an_embedder_that_was_given_stays_open():
    with EmbeddingService(str(ROOT / "tests" / "goldens" / "tiny-bert"), device="cpu") as service:
        with Summarizer(embedder=service) as summarizer:
            assert summarizer.summarize(["a"]) == "a"
        assert service.health_check()["status"] == "ok"


def test_modes(service, monkeypatch, tmp_path):
    embedder = service("tiny-bert")
    with pytest.raises(ConfigurationError, match="mode must be one of auto, abstractive, extractive, found 'short'"):
        Summarizer(mode="short", embedder=embedder)
    with pytest.raises(ConfigurationError, match="takes no generative model"):
        Summarizer("some/model", "extractive", embedder=embedder)
    monkeypatch.setenv("AKIDB_SUMMARY_MODEL", str(tmp_path / "none"))
    with Summarizer(mode="extractive", embedder=embedder) as one:
        assert one.mode == "extractive"
    monkeypatch.setenv("AKIDB_SUMMARY_MODE", "extractive")
    with Summarizer(embedder=embedder) as one:
        assert one.mode == "extractive"
