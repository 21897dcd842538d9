"""One deadline for a call: over tokenising, waiting, loading again and computing."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenization.loading import load_tokenizer
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import DeadlineExceededError, InvalidInputError
from akidb_mlx.runtime.locks import Latch
from tests.engines import FakeModel, call, start, stop
from tests.support import GOLDENS, run_python

LONG = "word " * 40_000  # 200 000 characters


class Stalling:
    """A tokenizer whose work on long texts lasts until it is let go."""

    def __init__(self, tokenizer, go_on, begun):
        self.tokenizer, self.go_on, self.begun = tokenizer, go_on, begun

    def encode_batch_fast(self, texts, **options):
        if sum(map(len, texts)) > 1000:
            self.begun.append(threading.current_thread())
            assert self.go_on.wait(30)
        return self.tokenizer.encode_batch_fast(texts, **options)


@pytest.fixture
def stalling():
    """A tokeniser, the event that lets its long work go on, and the threads that have begun such work."""
    checkpoint = read_checkpoint(GOLDENS / "tiny-bert")
    read, go_on, begun = TextTokenizer(checkpoint), threading.Event(), []
    read._long._load = lambda: Stalling(load_tokenizer(checkpoint).tokenizer, go_on, begun)
    yield read, go_on, begun
    go_on.set()


def test_a_caller_leaves_in_time_while_a_long_text_is_tokenised(stalling):
    read, _, begun = stalling
    with pytest.raises(DeadlineExceededError):
        read([LONG], "", "truncate", deadline=Deadline(0.1))
    assert len(begun) == 1


def test_one_abandoned_tokenising_at_most_runs_on(stalling):
    read, go_on, begun = stalling
    for _ in range(4):
        with pytest.raises(DeadlineExceededError):
            read([LONG], "", "truncate", deadline=Deadline(0.05))
    assert len(begun) == 1  # the others did not begin
    go_on.set()
    (text,) = read([LONG], "", "truncate", deadline=Deadline(30))
    assert text.truncated


def test_many_callers_at_once_abandon_one_tokenising(stalling):
    """Also those that have time left when the first of them leaves."""
    read, _, begun = stalling
    left = []

    def ask(seconds):
        try:
            read([LONG], "", "truncate", deadline=Deadline(seconds))
        except DeadlineExceededError:
            left.append(seconds)

    threads = [threading.Thread(target=ask, args=(0.3 * number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(left) == 4
    assert len(begun) == 1


def test_an_abandoned_tokenising_holds_up_nobody(stalling):
    """Neither short texts nor long ones without a deadline, also where the tokenizer had been loaded before."""
    read, go_on, begun = stalling
    go_on.set()
    assert read([LONG], "", "truncate")[0].truncated
    go_on.clear()
    begun.clear()
    with pytest.raises(DeadlineExceededError):
        read([LONG], "", "truncate", deadline=Deadline(0.05))
    assert begun[0].is_alive()
    read._long._load = lambda: load_tokenizer(read_checkpoint(GOLDENS / "tiny-bert")).tokenizer
    assert read(["short"], "", "truncate", deadline=Deadline(20))[0].token_count > 2
    assert read(["short"], "", "truncate")[0].token_count > 2
    assert read([LONG], "", "truncate")[0].truncated
    assert begun[0].is_alive()


def test_an_abandoned_tokenising_does_not_hold_up_one_that_waited_behind_it(stalling):
    """A call without a deadline that asked for the tokeniser while it was in use gets another one."""
    read, _, begun = stalling
    begins, results = threading.Event(), []

    def abandon():
        begins.set()
        with pytest.raises(DeadlineExceededError):
            read([LONG], "", "truncate", deadline=Deadline(0.5))

    def wait_behind():
        results.append(read([LONG], "", "truncate")[0].truncated)

    first = threading.Thread(target=abandon)
    first.start()
    while not begun:
        time.sleep(0.01)
    read._long._load = lambda: load_tokenizer(read_checkpoint(GOLDENS / "tiny-bert")).tokenizer
    second = threading.Thread(target=wait_behind)
    second.start()
    second.join(20)
    assert results == [True]
    first.join(5)


def test_tokens_are_the_same_with_a_deadline_and_without():
    read = TextTokenizer(read_checkpoint(GOLDENS / "tiny-bert"))
    texts = ["a b c", "", LONG, "word " * 5000, *(f"text {i} " * (i % 50) for i in range(300))]
    for policy in ("truncate", "chunk"):
        expected = read(texts, "query: ", policy, deadline=NEVER)
        found = read(texts, "query: ", policy, deadline=Deadline(60))
        assert [t.token_count for t in found] == [t.token_count for t in expected]
        assert all(
            np.array_equal(a, b)
            for f, e in zip(found, expected, strict=True)
            for a, b in zip(f.windows, e.windows, strict=True)
        )


def test_an_error_of_the_tokenizer_reaches_a_caller_with_a_deadline():
    read = TextTokenizer(read_checkpoint(GOLDENS / "tiny-bert"))

    def fail():
        raise MemoryError("no room")

    read._long._load = fail
    with pytest.raises(MemoryError):
        read([LONG], "", "truncate", deadline=Deadline(30))


def test_the_deadline_covers_tokenising(service, stalling, monkeypatch):
    read, _, _ = stalling
    one = service("tiny-bert")
    monkeypatch.setitem(one._tokenizers, "", read)
    before = one.get_metrics()["calls"]["timed_out"]
    with pytest.raises(DeadlineExceededError, match="within the call's timeout"):
        one.embed(["short", LONG], timeout=0.2)
    assert one.get_metrics()["calls"]["timed_out"] == before + 1
    assert one.get_metrics()["queue"] == {"requests": 0, "tokens": 0}
    assert len(one.embed(["short"])) == 1


def test_the_deadline_covers_loading_again(monkeypatch):
    """After its owner thread died, the model is loaded by the next call, which does not wait longer than it may."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    loads, go_on = [], threading.Event()

    class Slow(FakeModel):
        def __init__(self):
            super().__init__()
            loads.append(self)
            assert len(loads) == 1 or go_on.wait(30)

    engine = start(Slow)
    monkeypatch.setattr(engine.model, "memory", lambda: 1 / 0)
    call(engine, [1])
    assert engine.join(5)
    with pytest.raises(DeadlineExceededError, match="still loading"):
        call(engine, [2], timeout=0.1)
    go_on.set()
    assert call(engine, [3], timeout=30).result(5) == [[1, 3]]
    assert engine.queue_depth()["requests"] <= 1  # the call that left is dropped at its turn
    stop(engine)


def test_a_process_ends_while_an_abandoned_tokenising_runs():
    code = f"""
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import DeadlineExceededError
service = EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu")
try:
    service.embed(["word " * 2_000_000], timeout=0.1)
except DeadlineExceededError:
    print("left")
"""
    done = run_python(code)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400, 5, 5.0, np.float32(5), np.int64(5), Fraction(5)])
def test_timeouts_of_every_kind_of_number(service, timeout):
    assert len(service("tiny-bert").embed(["a"], timeout=timeout)) == 1


@pytest.mark.parametrize(
    "timeout", [0, -1, -(10**400), float("nan"), float("-inf"), True, "5", [5], np.array([5.0]), 5j, np.bool_(True)]
)
def test_what_is_no_timeout_is_refused(service, timeout):
    with pytest.raises(InvalidInputError, match="timeout must be a number of seconds above 0"):
        service("tiny-bert").embed(["a"], timeout=timeout)


def test_a_latch_that_nobody_sets_is_left_in_time():
    assert not Latch().wait(0.01)
    assert Deadline(10**-9).left() is not None
    assert NEVER.left() is None
    assert not NEVER.passed
