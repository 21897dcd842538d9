"""The beginning and the end of an engine's life: every future of every life is resolved, once and rightly."""

import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_all

import numpy as np
import pytest

from akidb_mlx.engine import engine as engine_module
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import (
    AkidbMlxError,
    DeadlineExceededError,
    InvalidInputError,
    ReentrantCallError,
    ServiceClosedError,
)
from akidb_mlx.runtime import owner, process
from akidb_mlx.runtime.locks import device_lock
from tests.engines import LIMITS, FakeModel, Pipelined, call, hold, open_call, start, stop


@pytest.fixture
def engine():
    one = start()
    yield one
    stop(one)


def kill(engine, monkeypatch):
    """End the owner thread as an error would that nothing handles."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(engine.models[-1], "memory", lambda: 1 / 0)
    call(engine, [1])
    assert engine.join(5)


# A call never succeeds with nothing


def test_a_call_that_ends_while_it_is_admitted_gives_its_own_future(engine):
    """Closing between the admission and the first look at the future is an error, and not a result of None."""
    opened = open_call(engine, lambda _: "vectors")
    engine.close()
    opened.end()
    with pytest.raises(ServiceClosedError):
        opened.future.result(5)


def test_a_deadline_of_a_microsecond_gives_an_error_or_the_vectors(service):
    one = service("tiny-bert")
    expected = one.embed_array(["a"])
    wrong = []

    def ask():
        for _ in range(300):
            try:
                found = one.submit(["a"], timeout=1e-6).result(30)
            except DeadlineExceededError:
                continue
            if found is None or not np.array_equal(found.vectors, expected):
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


# Two lives do not mix


def test_a_life_that_ends_late_leaves_the_next_one_alone(engine, monkeypatch):
    """The dying thread is held in its last step while another life begins: its end touches its own calls only."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    dying = engine._life
    ending, go_on = threading.Event(), threading.Event()
    fail_all = dying.queue.fail_all

    def slowly(error):
        ending.set()
        assert go_on.wait(10)
        fail_all(error)

    monkeypatch.setattr(dying.queue, "fail_all", slowly)
    engine.model.open.clear()
    pending = [call(engine, [i]) for i in range(1, 4)]
    assert engine.model.entered.wait(5)
    monkeypatch.setattr(engine.model, "memory", lambda: 1 / 0)
    engine.model.open.set()
    assert ending.wait(5)
    assert call(engine, [7]).result(5) == [[1, 7]]  # of the second life
    second = engine._life
    assert second is not dying
    go_on.set()
    assert dying.ended.wait(5)
    wait_for_all(pending, 5)
    assert all(future.done() for future in pending)
    assert engine.health()[0] == "degraded"
    assert call(engine, [8]).result(5) == [[1, 8]]
    assert not second.ended.wait(0)


def test_a_part_that_comes_after_the_end_of_its_life_does_not_run_in_the_next(engine, monkeypatch):
    opened = open_call(engine, lambda parts: parts)
    kill(engine, monkeypatch)
    assert call(engine, [5]).result(5) == [[1, 5]]
    opened.add([np.array([6], np.int32)], [0], BatchKey(), lambda vectors: vectors, 0)
    opened.end()
    with pytest.raises(ServiceClosedError, match="owner thread died"):
        opened.future.result(5)
    assert [6] not in [ids for run in engine.models[-1].runs for ids in run]


def test_closing_wins_over_a_restart(engine, monkeypatch):
    kill(engine, monkeypatch)
    engine.close()
    with pytest.raises(ServiceClosedError):
        call(engine, [1])
    assert len(engine.models) == 1


def test_close_during_a_restart_closes_the_new_life(engine, monkeypatch):
    """Whichever line of the hand-over the other thread stops at."""
    kill(engine, monkeypatch)
    real = engine_module.EngineLife

    class Late(real):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            engine.stop()

    monkeypatch.setattr(engine_module, "EngineLife", Late)
    with pytest.raises(ServiceClosedError):
        call(engine, [1])
    assert engine.join(5)


# Done-callbacks


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RuntimeError])
def test_a_callback_that_raises_harms_nobody(engine, error, caplog):
    def raise_it(_):
        raise error("in a callback")

    first = hold(engine)
    later = []
    waiting = [call(engine, [i]) for i in range(1, 6)]
    for future in [first, *waiting]:
        future.add_done_callback(raise_it)
        future.add_done_callback(later.append)
    engine.model.open.set()
    assert [future.result(5) for future in waiting] == [[[1, i]] for i in range(1, 6)]
    assert call(engine, [9]).result(5) == [[1, 9]]
    assert len(later) == 6
    assert error.__name__ in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_does_not_keep_the_rest_from_their_end(engine, error):
    def raise_it(_):
        raise error

    hold(engine)
    waiting = [call(engine, [i]) for i in range(1, 6)]
    for future in waiting:
        future.add_done_callback(raise_it)
    engine.stop()
    engine.model.open.set()
    assert engine.join(5)
    assert all(isinstance(future.exception(0), ServiceClosedError) for future in waiting)


def test_a_callback_that_embeds_with_its_own_service_gets_an_error_at_once(service):
    one = service("tiny-bert")
    found: Future[BaseException | None] = Future()

    def embed(_):
        try:
            one.embed(["b"])
            found.set_result(None)
        except BaseException as error:  # noqa: BLE001 - looked at below
            found.set_result(error)

    with device_lock:  # until the callback is there, so that it runs on the owner thread
        one.submit(["a"]).add_done_callback(embed)
    assert isinstance(found.result(10), ReentrantCallError)
    assert len(one.embed(["c"])) == 1


def test_waiting_on_an_owner_thread_is_refused(engine):
    from akidb_mlx.runtime.owner import check_may_wait

    refused: Future[bool] = Future()

    def callback(_):
        try:
            check_may_wait()
        except ReentrantCallError as error:
            refused.set_result("use submit()" in str(error))

    first = hold(engine)
    first.add_done_callback(callback)
    engine.model.open.set()
    assert refused.result(5)
    check_may_wait()  # elsewhere it is allowed


def test_a_callback_may_submit(engine):
    chained: Future[list] = Future()
    first = hold(engine)
    first.add_done_callback(
        lambda _: call(engine, [2]).add_done_callback(lambda done: chained.set_result(done.result()))
    )
    engine.model.open.set()
    assert chained.result(5) == [[1, 2]]


def test_a_callback_that_resubmits_does_not_restart_the_engine_from_its_own_end(engine, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    errors = []

    def again(_):
        try:
            call(engine, [2])
        except AkidbMlxError as error:
            errors.append(error)

    hold(engine)
    waiting = [call(engine, [i]) for i in range(1, 4)]
    for future in waiting:
        future.add_done_callback(again)
    monkeypatch.setattr(engine.model, "memory", lambda: 1 / 0)
    engine.model.open.set()
    assert engine.join(5)
    assert len(engine.models) == 1
    assert errors
    assert all(isinstance(error, ServiceClosedError) for error in errors)
    assert call(engine, [3]).result(5) == [[1, 3]]


# The device


@pytest.mark.parametrize("model", [FakeModel, Pipelined])
def test_waiting_for_the_device_is_neither_hanging_nor_computing(model):
    engine = start(model, stuck_after_s=0.05)
    with device_lock:
        future = call(engine, [1])
        time.sleep(0.2)
        assert engine.health() == ("ok", "ready")
        assert not engine.model.entered.is_set()
    assert future.result(5) == [[1, 1]]
    stop(engine)
    times = engine.metrics.report()["latency_s"]
    assert times["device_wait"]["sum"] >= 0.15
    assert times["compute"]["sum"] < times["device_wait"]["sum"]


def test_loading_does_not_hold_the_device():
    """A model that loads for ever does not keep another one from computing."""
    entered, go_on = threading.Event(), threading.Event()

    def load():
        entered.set()
        assert go_on.wait(10)
        return FakeModel()

    slow = engine_module.Engine(load, LIMITS)
    assert entered.wait(5)
    other = start()
    assert call(other, [1]).result(5) == [[1, 1]]
    go_on.set()
    slow.wait_until_loaded()
    slow.close()
    stop(other)


# Closing


def test_closing_waits_once(engine, monkeypatch):
    """A pass that hangs is waited for by the first call; the second one finds the time used up."""
    monkeypatch.setattr(process, "CLOSE_TIMEOUT_S", 0.2)
    hold(engine)
    waits = []
    join = engine.join
    monkeypatch.setattr(engine, "join", lambda timeout: (waits.append(timeout), join(timeout))[1])
    engine.close()
    engine.close()
    assert 0.1 < waits[0] <= 0.2
    assert waits[1:] == [0.0]


def test_all_models_are_stopped_side_by_side_under_one_bound(monkeypatch):
    """All are asked to end before the first is waited for, and one that hangs uses the time of all up."""
    now = [0.0]
    stopped, waits = [], []

    class Stuck:
        def stop(self):
            stopped.append(self)

        def join(self, timeout):
            assert len(stopped) == 3
            waits.append(timeout)
            now[0] += timeout
            return False

    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(process, "_running", {Stuck(), Stuck(), Stuck()})
    process.close_all()
    assert waits == [process.EXIT_TIMEOUT_S, 0.0, 0.0]
    assert process.EXIT_TIMEOUT_S < 5


def test_draining_does_not_spin_while_a_call_is_tokenised(engine, monkeypatch):
    """The owner thread sleeps until the call goes on."""
    looks = []
    must_wait = engine._life.queue._must_wait
    monkeypatch.setattr(engine._life.queue, "_must_wait", lambda: (looks.append(1), must_wait())[1])
    opened = open_call(engine, lambda parts: np.concatenate(parts).tolist())
    closing = threading.Thread(target=engine.close, kwargs={"drain": True})
    closing.start()
    time.sleep(0.3)
    assert len(looks) < 20
    opened.add([np.array([3], np.int32)], [0], BatchKey(), lambda vectors: vectors, 0)
    opened.end()
    assert opened.future.result(5) == [[1, 3]]
    closing.join(5)
    assert engine.status == "closed"


# Metrics


def test_a_refused_text_counts_as_failed(service):
    one = service("tiny-bert")
    before = one.get_metrics()["calls"]
    with pytest.raises(InvalidInputError):
        one.embed(["word " * 1000], on_overflow="error")
    after = one.get_metrics()["calls"]
    assert (after["failed"] - before["failed"], after["cancelled"] - before["cancelled"]) == (1, 0)


def test_every_line_of_the_hand_over(monkeypatch):
    """A pause at each line of the end of a life, in turn, while callers ask: each gets its vector or an error."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    for line in range(1, 16):
        monkeypatch.setattr(owner, "_parked", deque())  # so that the owner thread is a new one, which is traced
        seen = [0]

        def trace(frame, event, _argument, line=line, seen=seen):
            if frame.f_code.co_name in ("_run", "fail_all", "_usable_life", "_replace"):
                if event == "line":
                    seen[0] += 1
                    if seen[0] % 16 == line:
                        time.sleep(0.005)
                return trace
            return None

        threading.settrace(trace)
        engine = start()
        answers = []

        def ask(engine=engine, answers=answers):
            for token in range(2, 12):
                try:
                    answers.append(call(engine, [token]).result(10) == [[1, token]])
                except ServiceClosedError:
                    answers.append(True)

        try:
            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            engine.models[-1].memory = lambda: 1 / 0
            for thread in threads:
                thread.join(20)
        finally:
            threading.settrace(None)
        assert answers == [True] * 30
        stop(engine)
