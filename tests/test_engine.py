"""The owner thread: every call ends, whatever happens to the model, the engine or the process."""

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest

from akidb_mlx.engine.engine import Engine
from akidb_mlx.errors import (
    AkidbMlxError,
    DeadlineExceededError,
    InferenceError,
    ModelLoadError,
    ServiceClosedError,
    ServiceOverloadedError,
)
from tests.engines import (
    LIMITS,
    FakeModel,
    LateErrorSlot,
    OneErrorSlot,
    Pipelined,
    ThreeLanes,
    call,
    hold,
    open_call,
    start,
    stop,
)
from tests.support import GOLDENS, run_python


@pytest.fixture
def engine():
    one = start()
    yield one
    stop(one)


MIX = [[i] * length for i, length in enumerate([3, 40, 1, 40, 7, 64, 2])]


@pytest.mark.parametrize("model", [FakeModel, ThreeLanes, Pipelined])
def test_results_come_in_the_order_of_the_call(model):
    engine = start(model)
    assert call(engine, *MIX).result(5) == [[len(s), s[0]] for s in MIX]
    assert sorted(length for run in engine.model.runs for batch in run for length in batch) == [1, 2, 3, 7, 40, 40, 64]
    assert all(len(batch) * max(batch) <= 64 for run in engine.model.runs for batch in run)
    stop(engine)


def test_lanes_divide_a_short_call():
    engine = start(ThreeLanes)
    assert call(engine, [1] * 16, [2] * 16, [3] * 16).result(5) == [[16, 1], [16, 2], [16, 3]]
    assert engine.model.runs == [[[16], [16], [16]]]
    call(engine, [1] * 5, [2] * 5, [3] * 5).result(5)
    assert engine.model.runs[1:] == [[[5, 5, 5]]]  # too little to divide
    stop(engine)


def test_lanes_do_as_much_as_each_other():
    engine = start(ThreeLanes)
    call(engine, [1] * 40, *([i] * 30 for i in range(2, 6))).result(5)
    assert engine.model.runs == [[[40], [30], [30]], [[30], [30]]]  # two of 30 would fit beside 40
    stop(engine)


def test_a_call_with_nothing(engine):
    assert call(engine).result(5) == []


def test_calls_that_wait_share_batches(engine):
    first = hold(engine)
    waiting = [call(engine, [i] * 8) for i in range(16)]
    engine.model.open.set()
    assert [future.result(5) for future in [first, *waiting]] == [[[1, 999]], *([[8, i]] for i in range(16))]
    assert engine.model.runs == [[[1]], [[8] * 6], [[8] * 6], [[8] * 4]]


def test_equal_texts_of_all_calls_run_once(engine):
    hold(engine)
    waiting = [call(engine, [7] * 8, [5] * 8, [7] * 8) for _ in range(10)]
    engine.model.open.set()
    assert all(future.result(5) == [[8, 7], [8, 5], [8, 7]] for future in waiting)
    assert engine.model.runs == [[[1]], [[8, 8]]]
    assert engine.metrics.report()["shared_sequences"] == 28


def test_a_short_call_does_not_wait_for_a_long_one(engine):
    """Whatever its length, it runs in the step after next at the latest, and the long call loses no place by it."""
    hold(engine)
    long = call(engine, *([i] * 32 for i in range(200)))
    short = [call(engine, [i] * length) for i, length in enumerate([3, 32, 64])]
    order = []
    for name, future in [("long", long), *zip((3, 32, 64), short, strict=True)]:
        future.add_done_callback(lambda _, name=name: order.append((name, len(engine.model.runs))))
    engine.model.open.set()
    assert len(long.result(5)) == 200
    done = dict(order)
    assert max(done[3], done[32], done[64]) <= 7
    assert done["long"] <= 105


def test_many_short_calls_do_not_starve_a_long_one(engine):
    hold(engine)
    long = call(engine, *([i] * 64 for i in range(4)))
    stopping = threading.Event()

    def flood():
        while not stopping.is_set():
            call(engine, [1] * 16).result(5)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    engine.model.open.set()
    try:
        assert len(long.result(5)) == 4
    finally:
        stopping.set()
        for thread in threads:
            thread.join(5)


def test_a_delay_lets_calls_meet():
    engine = start(coalesce_delay_s=0.3)
    waiting = [call(engine, [i] * 8) for i in range(4)]
    assert [future.result(5) for future in waiting] == [[[8, i]] for i in range(4)]
    assert engine.model.runs == [[[8] * 4]]
    stop(engine)


# Bounds


def test_beyond_the_bound_calls_are_refused_at_once():
    engine = start(max_queued_requests=5)
    hold(engine)
    waiting = [call(engine, [1]) for _ in range(4)]
    with pytest.raises(ServiceOverloadedError, match="5 calls of at most 5") as caught:
        call(engine, [1])
    assert caught.value.retry_after_s > 0
    assert engine.health() == ("degraded", "the queue is full")
    engine.model.open.set()
    assert all(future.result(5) == [[1, 1]] for future in waiting)
    assert call(engine, [2]).result(5) == [[1, 2]]
    assert engine.metrics.report()["calls"]["refused"] == 1
    stop(engine)


def test_the_bound_in_tokens():
    """A call's expected tokens count before it is tokenised; a larger call than the bound runs when nothing waits."""
    engine = start(max_queued_tokens=100)
    hold(engine)
    huge = open_call(engine, lambda _: "done", 1000)
    with pytest.raises(ServiceOverloadedError, match="1000 tokens of at most 100"):
        call(engine, [1] * 10)
    huge.future.cancel()
    waiting = [call(engine, [i] * 10) for i in range(10)]
    with pytest.raises(ServiceOverloadedError, match="100 tokens"):
        open_call(engine, lambda _: None, 1)
    engine.model.open.set()
    for future in waiting:
        future.result(5)
    assert engine.queue_depth() == {"requests": 0, "tokens": 0}
    stop(engine)


def test_a_cancelled_call_frees_its_place_and_never_runs(engine):
    first = hold(engine)
    dropped, kept = call(engine, [2], [3]), call(engine, [4])
    assert dropped.cancel()
    assert engine.queue_depth()["tokens"] == 1
    wait([dropped], timeout=1)
    engine.model.open.set()
    assert (first.result(5), kept.result(5)) == ([[1, 999]], [[1, 4]])
    with pytest.raises(CancelledError):
        dropped.result(0)
    assert engine.model.runs == [[[1]], [[1]]]


def test_a_call_is_cancelled_halfway(engine):
    engine.model.open.clear()
    long = call(engine, *([i] * 64 for i in range(50)))
    assert engine.model.entered.wait(5)
    assert long.cancel()
    engine.model.open.set()
    assert call(engine, [1]).result(5) == [[1, 1]]
    assert len(engine.model.runs) <= 2


def test_a_deadline_drops_what_has_not_run(engine):
    first = hold(engine)
    late, early = call(engine, [2], timeout=0.05), call(engine, [3], timeout=30)
    time.sleep(0.1)
    engine.model.open.set()
    with pytest.raises(DeadlineExceededError, match="within the call's timeout"):
        late.result(5)
    assert (first.result(5), early.result(5)) == ([[1, 999]], [[1, 3]])
    assert engine.metrics.report()["calls"]["timed_out"] == 1
    assert sum(len(batch) for run in engine.model.runs for batch in run) == 2


# Faults


@pytest.mark.parametrize("token", [1001, 2001])
def test_the_text_at_fault_is_found_in_its_batch(engine, token):
    """Of eight calls in one batch, that with the bad text fails, names it, and the others get their vectors."""
    hold(engine)
    good = [call(engine, [i] * 4) for i in range(1, 8)]
    bad = call(engine, [99] * 4, [token] * 4)
    runs = engine.model.runs
    engine.model.open.set()
    assert [future.result(5) for future in good] == [[[4, i]] for i in range(1, 8)]
    with pytest.raises(InferenceError, match="forward pass failed on text 1") as caught:
        bad.result(5)
    assert caught.value.index == 1
    assert runs[1] == [[4] * 9]  # all in one batch at first
    assert call(engine, [5]).result(5) == [[1, 5]]


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("model", [OneErrorSlot, LateErrorSlot])
def test_a_failure_of_the_device_that_passes_fails_no_call(model, position, failures):
    """Step N fails while N + 1 is handed over; N's vectors are garbage then, and no error is left to say so."""
    engine = start(model, max_queued_tokens=100_000)
    first = hold(engine)
    calls = [call(engine, [i] * 60) for i in range(1, 7)]  # a step each
    engine.model.failures[position + 1] = failures
    engine.model.open.set()
    assert first.result(5) == [[1, 999]]
    assert [future.result(5) for future in calls] == [[[60, i]] for i in range(1, 7)]
    assert engine.model.failures[position + 1] == 0
    stop(engine)


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("model", [OneErrorSlot, LateErrorSlot])
def test_a_failure_of_the_device_that_stays_is_that_of_its_text(model, position):
    engine = start(model, max_queued_tokens=100_000)
    hold(engine)
    calls = [call(engine, [i] * 60) for i in range(1, 7)]
    engine.model.failures[position + 1] = 100
    engine.model.open.set()
    for i, future in enumerate(calls):
        if i == position:
            with pytest.raises(InferenceError, match="the command buffer failed"):
                future.result(5)
        else:
            assert future.result(5) == [[60, i + 1]]
    stop(engine)


def test_a_hang_is_noticed_and_starts_no_second_thread():
    engine = start(stuck_after_s=0.1)
    first = hold(engine)
    threads = threading.active_count()
    time.sleep(0.2)
    status, reason = engine.health()
    assert status == "failed"
    assert "has been running for" in reason
    with pytest.raises(FutureTimeoutError):
        call(engine, [1], timeout=0.05).result(0.1)
    assert threading.active_count() == threads
    engine.model.open.set()
    assert first.result(5)
    assert engine.health() == ("ok", "ready")
    stop(engine)


def test_idle_memory_is_given_back(monkeypatch):
    monkeypatch.setattr("akidb_mlx.engine.step_loop._IDLE_S", 0.05)
    engine = start()
    assert call(engine, [1]).result(5)
    assert engine.model.released.wait(5)
    assert call(engine, [1]).result(5)
    stop(engine)


def test_a_result_goes_with_whoever_asked(engine):
    """At once, and not when the garbage collector comes by."""
    gc.collect()
    gc.disable()
    try:
        first = hold(engine)
        done, cancelled = call(engine, [1, 2]), call(engine, [3])
        cancelled.cancel()
        engine.model.open.set()
        assert done.result(5) == [[2.0, 1.0]]
        watched = [weakref.ref(future) for future in (first, done, cancelled)]
        call(engine, [4]).result(5)  # the owner thread has turned to something else
        del first, done, cancelled
        assert [future() for future in watched] == [None, None, None]
    finally:
        gc.enable()


def test_metrics_add_up(engine):
    hold(engine)
    futures = [call(engine, [i] * 4) for i in range(4)] + [call(engine, [9] * 3)]
    engine.model.open.set()
    for future in futures:
        future.result(5)
    found = engine.metrics.report()
    assert (found["calls"]["completed"], found["sequences"], found["batches"], found["tokens"]) == (6, 6, 2, 20)
    assert found["padding_ratio"] == pytest.approx(1 / 21)
    assert found["batch_fill"] == pytest.approx(21 / 128)
    assert found["latency_s"]["call"]["count"] == found["latency_s"]["call"]["buckets"]["+Inf"] == 6
    assert found["latency_s"]["compute"]["count"] == 2


def test_everything_runs_on_one_thread(engine):
    threads = [threading.Thread(target=lambda: call(engine, [1]).result(5)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert engine.metrics.report()["calls"]["completed"] == 20  # and the model asserts the thread


def test_engines_that_follow_each_other_share_a_thread():
    threads = set()
    for _ in range(5):
        engine = start()
        threads.add(engine.model.thread)
        stop(engine)
        time.sleep(0.05)
    assert len(threads) == 1


def test_an_error_while_finishing_fails_its_call_and_no_other(engine):
    def refuse(_):
        raise InferenceError("not a vector", 3)

    failing = call(engine, [1], finish=refuse)
    with pytest.raises(InferenceError, match="not a vector"):
        failing.result(5)
    assert call(engine, [1]).result(5)


def test_closing_ends_every_call(engine):
    """The batch that runs is finished; the rest of its call, and the calls behind it, fail."""
    engine.model.open.clear()
    running = call(engine, *([i] * 64 for i in range(5)))
    waiting = [call(engine, [2]) for _ in range(10)]
    assert engine.model.entered.wait(5)
    threading.Timer(0.2, engine.model.open.set).start()
    engine.close()
    for future in [running, *waiting]:
        with pytest.raises(ServiceClosedError):
            future.result(1)
    assert engine.status == "closed"
    assert engine.model.closed.is_set()
    with pytest.raises(ServiceClosedError, match="the service is closed"):
        call(engine, [1])


def test_closing_does_not_wait_for_ever(engine, monkeypatch, caplog):
    monkeypatch.setattr("akidb_mlx.runtime.process.CLOSE_TIMEOUT_S", 0.1)
    engine.model.open.clear()
    future = call(engine, [1])
    assert engine.model.entered.wait(5)
    engine.close()
    assert "did not end" in caplog.text
    engine.model.open.set()
    assert future.result(5) == [[1, 1]]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModelLoadError("no such tensor"), ModelLoadError, "^no such tensor$"),
        (MemoryError("too large"), ModelLoadError, "MemoryError: too large"),
        (SystemExit(3), ModelLoadError, "SystemExit: 3"),
    ],
)
def test_a_load_that_fails(error, kind, message):
    def load():
        raise error

    engine = Engine(load, LIMITS)
    with pytest.raises(kind, match=message):
        engine.wait_until_loaded()
    assert engine.status == "failed"
    with pytest.raises(ServiceClosedError, match="owner thread died"):
        call(engine, [1])


def test_an_owner_thread_that_dies_fails_what_waits_and_is_replaced_once(engine, monkeypatch):
    """Whatever escapes the engine's own handling ends the thread, and nobody waits for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def die():
        monkeypatch.setattr(engine.models[-1], "memory", lambda: 1 / 0)
        futures = [call(engine, [1]) for _ in range(3)]
        assert engine.join(5)
        assert all(future.exception(5) is None or isinstance(future.exception(), AkidbMlxError) for future in futures)

    die()
    assert engine.health() == ("failed", "the owner thread died; the next call restarts it")
    assert call(engine, [2]).result(5) == [[1, 2]]
    assert len(engine.models) == 2
    assert engine.health() == ("degraded", "the owner thread died and was replaced")
    die()
    assert engine.health() == ("failed", "failed")
    with pytest.raises(ServiceClosedError, match="owner thread died"):
        call(engine, [1])


def test_draining_finishes_what_was_admitted(engine):
    first = hold(engine)
    waiting = [call(engine, [i]) for i in range(10)]
    closing = threading.Thread(target=engine.close, kwargs={"drain": True})
    closing.start()
    time.sleep(0.05)
    with pytest.raises(ServiceClosedError):
        call(engine, [1])
    engine.model.open.set()
    closing.join(5)
    assert not closing.is_alive()
    assert [future.result(0) for future in [first, *waiting]] == [[[1, 999]], *([[1, i]] for i in range(10))]
    assert engine.status == "closed"


def test_concurrent_submitting_and_closing_loses_no_call():
    for _ in range(30):
        engine = start(max_queued_requests=1000)
        futures, refused = [], []

        def submit(engine=engine, futures=futures, refused=refused):
            try:
                for _ in range(50):
                    futures.append(call(engine, [1]))
            except ServiceClosedError as error:
                refused.append(error)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        engine.close()
        for thread in threads:
            thread.join(5)
        for future in futures:
            assert future.exception(5) is None or isinstance(future.exception(), ServiceClosedError)


# A whole process: how it ends, and what a fork of it may do.

SERVICE = f"""
import os, sys, threading, time
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError, ServiceClosedError
service = EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu")
texts = ["a longer text with a number of words in it " * 8] * 200_000
"""


def test_a_process_ends_with_calls_pending():
    code = """
def work():
    try:
        service.embed_array(texts)
    except ServiceClosedError as error:
        print("resolved:", error, flush=True)
threading.Thread(target=work).start()
for _ in range(3):
    service.submit(["a"])
while service.get_metrics()["queue"]["requests"] < 1:  # the long call is being served
    time.sleep(0.01)
"""
    done = run_python(SERVICE + "texts = texts[:20_000]\n" + code)
    assert done.returncode == 0, done.stderr
    assert "resolved: the service is closed" in done.stdout


@pytest.mark.slow
def test_a_host_that_never_finalises_python_ends_at_once():
    """As a Rust host does, whose exit runs no hook of Python's: nothing waits, and nothing is left on disk to mend."""
    done = run_python(SERVICE + "service.submit(texts[:20_000])\nos._exit(7)\n")
    assert done.returncode == 7, done.stderr


@pytest.mark.slow
def test_a_host_may_close_and_never_finalise():
    code = """
future = service.submit(texts[:20_000])
service.close()
print(type(future.exception(0)).__name__, flush=True)
os._exit(7)
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (7, "ServiceClosedError\n"), done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_process_ends_on_a_signal(name):
    code = SERVICE + "texts = texts[:20_000]\nprint('embedding', flush=True)\nservice.embed_array(texts)\n"
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "embedding\n"
    time.sleep(0.5)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=5)
    assert process.returncode == (-signal.SIGTERM if name == "SIGTERM" else -signal.SIGINT)
    assert ("KeyboardInterrupt" in errors) == (name == "SIGINT")


def test_a_forked_child_gets_a_clear_error():
    code = """
service.embed(["a"])
def attempt(what):
    try:
        what()
    except ServiceClosedError as error:
        return "does not survive a fork" in str(error)
    return False
child = os.fork()
if child == 0:
    refused = attempt(lambda: service.embed(["a"])) and attempt(lambda: EmbeddingService(service._model_name))
    known = service.get_model_info()["dimension"] == 64 and service.health_check()["status"] == "failed"
    service.close()
    os._exit(0 if refused and known else 1)
assert os.waitpid(child, 0)[1] == 0
assert len(service.embed(["a"])) == 1
print("parent lives")
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (0, "parent lives\n"), done.stderr


def test_a_spawned_process_may_have_a_service(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
from akidb_mlx import EmbeddingService
def count(_):
    with EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu") as service:
        return len(service.embed(["a", "b"]))
if __name__ == "__main__":
    with EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu"):
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(pool.map(count, range(2)))
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[2, 2]\n", done.stderr
