"""One deadline for a summary: over splitting, tokenising, embedding, waiting for the model and each token."""

import threading
from concurrent.futures import Future

import pytest

pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import DeadlineExceededError, InvalidInputError
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.summarization import Summarizer
from tests.clocks import FakeClock
from tests.fake_embedder import FakeEmbedder

LONG = [f"Message {i} says something about item {i}. It says a second thing, too." for i in range(60)]
LONG_MESSAGE = "All of it counts for something. " * 100


class NeverDone(FakeEmbedder):
    """An embedder whose forward pass hangs; it keeps the options of its calls."""

    def submit(self, texts, **options):  # noqa: ARG002
        self.calls.append(options)
        return Future()


@pytest.fixture(scope="module")
def abstractive(request):
    request.getfixturevalue("language_models")
    with Summarizer(request.getfixturevalue("chat_model"), device="cpu") as one, pytest.MonkeyPatch.context() as patch:
        patch.setattr("akidb_mlx.summarization.abstractive._LONG_CHARACTERS", 1000)
        yield one


# What both kinds share


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")])
def test_a_timeout_that_is_refused(timeout):
    with Summarizer(embedder=FakeEmbedder()) as one:
        for call in (one.summarize, one.stream, one.summarize_batch):
            with pytest.raises(InvalidInputError, match="timeout must be a number of seconds above 0"):
                call([], timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 60, 1e300, float("inf")])
def test_a_timeout_that_is_long_enough_changes_nothing(timeout):
    with Summarizer(embedder=FakeEmbedder()) as one:
        expected = one.summarize(LONG, max_words=30)
        assert one.summarize(LONG, max_words=30, timeout=timeout) == expected
        assert one.summarize_batch([LONG], max_words=30, timeout=timeout) == [expected]
        assert "".join(one.stream(LONG, max_words=30, timeout=timeout)) == expected


def test_any_embedder_serves():
    embedder = FakeEmbedder()
    with Summarizer(embedder=embedder) as one:
        assert one.summarize(LONG, max_words=30)
        assert repr(one) == "<Summarizer 'fake': extractive, ready>"
        assert one.get_model_info()["model_name"] == "fake"
    assert embedder.status == "ready"
    assert repr(one) == "<Summarizer 'fake': extractive, closed>"


# Extractive


def test_a_forward_pass_that_hangs_is_left():
    embedder = NeverDone()
    with Summarizer(embedder=embedder) as one, pytest.raises(DeadlineExceededError, match="not done within"):
        one.summarize(LONG, max_words=30, timeout=0.05)
    assert 0 < embedder.calls[0]["timeout"] <= 0.05


def test_splitting_is_ended_by_the_deadline(monkeypatch):
    clock, embedder = FakeClock(monkeypatch), FakeEmbedder()
    with Summarizer(embedder=embedder) as one:
        split = one._backend._split

        def slow(text):
            for span in split(text):
                clock.advance(1)
                yield span

        one._backend._split = slow
        with pytest.raises(DeadlineExceededError, match=r"dropped after 12\.00 s"):
            one.summarize(LONG, max_words=30, timeout=11.5)
    assert embedder.calls == []


def test_choosing_is_ended_by_the_deadline(monkeypatch):
    """The work after the embedding counts, too."""
    clock, embedder = FakeClock(monkeypatch), FakeEmbedder()
    with Summarizer(embedder=embedder) as one:
        embed = embedder.embed_array
        embedder.embed_array = lambda *texts, **options: (embed(*texts, **options), clock.advance(9))[0]
        with pytest.raises(DeadlineExceededError):
            one.summarize(LONG, max_words=30, timeout=5)


def test_conversations_share_one_deadline(monkeypatch):
    clock, embedder = FakeClock(monkeypatch), FakeEmbedder()
    with Summarizer(embedder=embedder) as one:
        embed = embedder.embed_array
        embedder.embed_array = lambda *texts, **options: (embed(*texts, **options), clock.advance(2))[0]
        monkeypatch.setattr("akidb_mlx.summarization.extractive._SLICE", 16)
        with pytest.raises(DeadlineExceededError):
            one.summarize_batch([LONG[:30], LONG[30:]], max_words=20, timeout=3)
        assert len(embedder.calls) == 2


# Abstractive


def test_a_model_that_does_not_answer_is_left(abstractive):
    """Its step waits for the device, as it would hang; and the answer that nobody wants is not written."""
    asked = []
    generate = abstractive._backend._model.generate

    def noting(*arguments):
        asked.append(generate(*arguments))
        return asked[-1]

    abstractive._backend._model.generate = noting
    try:
        with device_lock, pytest.raises(DeadlineExceededError):
            abstractive.summarize(LONG[:3], max_words=20, timeout=0.1)
        assert [answer.wanted for answer in asked] == [False]
    finally:
        del abstractive._backend._model.generate
    assert abstractive.summarize(LONG[:3], max_words=20, timeout=60)


def test_a_stream_ends_with_the_deadline_between_tokens(abstractive, monkeypatch):
    clock = FakeClock(monkeypatch)
    answer = abstractive._backend._model.generate([5, 6, 7], 100, Deadline(5))
    with answer:
        pieces = iter(answer)
        next(pieces)
        clock.advance(6)
        with pytest.raises(DeadlineExceededError):
            list(pieces)


def test_conversations_of_a_language_model_share_one_deadline(abstractive, monkeypatch):
    clock = FakeClock(monkeypatch)
    done = []

    def progress(number, _):
        done.append(number)
        clock.advance(2)

    with pytest.raises(DeadlineExceededError):
        abstractive.summarize_batch([LONG[:2]] * 5, max_words=10, timeout=5, progress=progress)
    assert done == [0, 1, 2]


def test_tokenising_that_hangs_is_left_and_holds_up_no_short_call(abstractive, monkeypatch):
    """One such thread at most: a second caller with a deadline does not start another."""
    backend = abstractive._backend
    pieces, go_on, begun = backend._pieces, threading.Event(), []

    def hang(message, *arguments):
        if len(message.text) > 1000:
            begun.append(threading.current_thread())
            assert go_on.wait(60)
        return pieces(message, *arguments)

    monkeypatch.setattr(backend, "_pieces", hang)
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            abstractive.summarize(LONG_MESSAGE, max_words=10, timeout=0.05)
    assert abstractive.summarize(LONG[:2], max_words=10, timeout=60)
    go_on.set()
    assert len(begun) == 1
    begun[0].join(60)
    assert abstractive.summarize(LONG_MESSAGE, max_words=10, timeout=60)


def test_an_abandoned_tokenising_ends_after_its_message(abstractive, monkeypatch):
    backend = abstractive._backend
    pieces, go_on, read, threads = backend._pieces, threading.Event(), [], []

    def hang(message, *arguments):
        threads.append(threading.current_thread())
        assert go_on.wait(60)
        found = pieces(message, *arguments)
        read.append(message)
        return found

    monkeypatch.setattr(backend, "_pieces", hang)
    with pytest.raises(DeadlineExceededError):
        abstractive.summarize([LONG_MESSAGE] * 5, max_words=10, timeout=0.05)
    go_on.set()
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert read == []
