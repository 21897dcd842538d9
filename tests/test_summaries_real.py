"""Gemma 3 270M writes summaries: it was not trained to answer, and continues two examples."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx.summarization import Summarizer
from akidb_mlx.summarization.words import count_words
from tests.chat_models import make_chat_model
from tests.support import sts_pairs

pytestmark = pytest.mark.usefixtures("language_models")

TALK = [
    {"role": "Ada", "content": "The printer on the third floor is broken again. It eats every second page."},
    {"role": "Ben", "content": "I called the repair company. They come on Tuesday at ten."},
    {"role": "Ada", "content": "Please tell everybody to use the one on the second floor until then."},
]
ARTICLE = (
    "Researchers at the harbour institute have counted the seals in the bay every spring for thirty years. This year "
    "they found four hundred animals, twice as many as ten years ago. They think that cleaner water and a ban on nets "
    "near the sandbanks helped the seals. Fishermen complain that the seals take part of their catch. The institute "
    "will tag fifty animals in June to find out what they eat and how far they swim. "
)


@pytest.fixture(scope="module")
def summarizer(gemma):
    with Summarizer(gemma, device="cpu", context_tokens=512) as one:
        yield one


@pytest.mark.real_weights
def test_a_talk(summarizer):
    pieces, times = [], []
    for piece in summarizer.stream(TALK, max_words=40):
        pieces.append(piece)
        times.append(time.monotonic())
    summary = "".join(pieces)
    assert "printer" in summary
    assert 5 <= count_words(summary) <= 40
    assert "\n" not in summary
    assert summarizer.summarize(TALK, max_words=40) == summary


@pytest.mark.real_weights
def test_an_article(summarizer):
    summary = summarizer.summarize(ARTICLE, max_words=30)
    assert "seals" in summary
    assert count_words(summary) <= 30


@pytest.mark.real_weights
@pytest.mark.load
def test_ten_windows(summarizer):
    """A text of more than ten times the tokens that one prompt holds beside its examples."""
    backend = summarizer._backend
    text = " ".join(f"Report {i}. {ARTICLE}" for i in range(22))
    assert len(backend._tokenizer.encode(text)) > 10 * backend._capacity(20)
    steps = []
    summary = summarizer.summarize(text, max_words=20, progress=lambda *step: steps.append(step))
    assert "seals" in summary
    assert count_words(summary) <= 20
    assert steps[-1][0] == steps[-1][1] > 11


@pytest.mark.parametrize(("seconds", "least"), [(3, 4), pytest.param(60, 8, marks=pytest.mark.load)])
def test_embedding_and_summarising_side_by_side(minilm, tmp_path, seconds, least):
    """Eight threads; nobody starves, and the vectors are those computed alone."""
    first, second, _ = sts_pairs()
    texts = [*first[:100], *second[:100]]
    alone = minilm.embed_array(texts)
    with Summarizer(make_chat_model(tmp_path / "chat"), device="cpu") as summarizer:
        expected = summarizer.summarize(TALK, max_words=20)
        ends = time.monotonic() + seconds
        counts = {"embed": 0, "summarize": 0}
        worst = 0.0
        failures: list[BaseException] = []

        def embed():
            nonlocal worst
            while time.monotonic() < ends:
                worst = max(worst, float(np.abs(minilm.embed_array(texts) - alone).max()))
                counts["embed"] += 1

        def summarize():
            while time.monotonic() < ends:
                assert summarizer.summarize(TALK, max_words=20) == expected
                counts["summarize"] += 1

        def guarded(work):
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - a thread of the test
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(work,)) for work in [embed, summarize] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert worst < 1e-6
    assert min(counts.values()) >= least, counts  # how many, the machine decides; none waits for ever
