"""Calls into a service from a signal handler or a finalizer: an answer or an error, and never a deadlock."""

import signal
import threading
import time

import pytest

from akidb_mlx.engine.metrics import Histogram, Metrics
from akidb_mlx.errors import ReentrantCallError, ServiceOverloadedError
from akidb_mlx.runtime.finalizers import clean_up_after
from akidb_mlx.runtime.locks import ExclusiveLock, FairLock, Latch
from tests.engines import call, hold, open_call, start, stop
from tests.support import GOLDENS, run_python


@pytest.mark.parametrize("kind", [ExclusiveLock, FairLock])
def test_a_lock_is_not_waited_for_by_the_thread_that_holds_it(kind):
    lock = kind()
    with lock, pytest.raises(ReentrantCallError, match="signal handler or a finalizer"), lock:
        pass
    with lock:  # and it is whole
        pass


@pytest.mark.parametrize("kind", [ExclusiveLock, FairLock])
def test_a_lock_excludes_other_threads(kind):
    lock, inside, most = kind(), [0], [0]

    def work():
        for _ in range(200):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]


def test_a_lock_can_be_waited_for_until_a_deadline():
    lock = ExclusiveLock()
    with lock:
        assert not lock.try_acquire()
        found = []
        other = threading.Thread(target=lambda: found.append((lock.try_acquire(), lock.acquire(timeout=0.01))))
        other.start()
        other.join(5)
        assert found == [(False, False)]
    assert lock.try_acquire()
    lock.release()


def test_a_fair_lock_keeps_its_order_when_a_thread_stops_waiting():
    lock, order = FairLock(), []

    def wait(name, timeout):
        if lock.acquire(timeout):
            order.append(name)
            lock.release()

    threads = [threading.Thread(target=wait, args=one) for one in (("first", 30), ("gives up", 0.01), ("last", 30))]
    with lock:
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while len(lock._waiting) < waiting and thread.is_alive():
                time.sleep(0.001)
        threads[1].join(30)
        assert lock.wanted
    for thread in threads:
        thread.join(30)
    assert order == ["first", "last"]
    assert lock.acquire(timeout=0)  # no turn was lost, and none is left
    lock.release()


def test_a_turn_that_comes_as_the_time_is_up_is_taken():
    """Between the end of the waiting and the withdrawal."""
    lock = FairLock()
    withdraw = lock._withdraw

    def too_late(turn):
        holder.release()
        released.wait(30)
        return withdraw(turn)

    holder, released = threading.Lock(), threading.Event()
    holder.acquire()

    def hold():
        with lock:
            held.set()
            holder.acquire()
        released.set()

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    lock._withdraw = too_late
    assert lock.acquire(timeout=0.001)
    lock.release()
    thread.join(30)


def test_a_latch_wakes_all_who_wait_now_and_later():
    latch, woken = Latch(), []
    threads = [threading.Thread(target=lambda: woken.append(latch.wait(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert not latch.wait(0.01)
    latch.set()
    for thread in threads:
        thread.join(5)
    assert woken == [True] * 4
    assert latch.wait(0)


def test_metrics_lose_nothing_that_interrupts_a_count():
    """As a signal handler would, in the middle of a change."""
    metrics = Metrics()

    class Interrupted(Histogram):
        def observe(self, seconds):
            if seconds == 1:
                metrics.end_call("failed", 2)
                assert metrics.report()["calls"]["failed"] == 0  # noted, and counted after this change
            super().observe(seconds)

    metrics._latencies["call"] = Interrupted()
    metrics.end_call("completed", 1)
    found = metrics.report()
    assert (found["calls"]["completed"], found["calls"]["failed"]) == (1, 1)
    assert (found["latency_s"]["call"]["count"], found["latency_s"]["call"]["sum"]) == (2, 3)


SERVICE = f"""
import random, signal, sys, threading, time
import numpy as np
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError, ReentrantCallError
service = EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu")
expected = service.embed_array(["a"])
def right(found):
    return np.abs(found - expected).max() < 1e-5
"""


@pytest.mark.parametrize(
    "call",
    [
        "service.submit(['b'])",
        "service.submit(['b']).cancel()",
        "service.embed(['b'], timeout=5)",
        "service.get_metrics(), service.get_model_info(), service.health_check()",
        "pending.pop().cancel() if pending else None",
    ],
)
def test_a_signal_handler_may_call_the_service(call):
    """A timer interrupts the main thread again and again, whichever line it is at."""
    code = f"""
pending, answers, refusals, wrong = [], [0], [0], []
end = time.monotonic() + 2
def handler(*_):
    try:
        {call}
        answers[0] += 1
    except ReentrantCallError:
        refusals[0] += 1
    except AkidbMlxError as error:
        wrong.append(repr(error))
    if time.monotonic() < end:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002)
while time.monotonic() < end:
    future = service.submit(["a"])
    pending.append(service.submit(["c"]))
    assert right(future.result(30).vectors)
    del pending[:-3]
signal.setitimer(signal.ITIMER_REAL, 0)
service.close(drain=True)
assert service.get_metrics()["queue"] == {{"requests": 0, "tokens": 0}}, service.get_metrics()["queue"]
assert not wrong, wrong[:3]
assert answers[0] > 20, (answers, refusals)
print("alive", answers[0], refusals[0])
"""
    done = run_python(SERVICE + code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("alive")


def test_a_call_imports_nothing():
    """On Python 3.10, a signal handler may interrupt an import where it holds a lock, and would wait for that lock."""
    code = """
import sys
imports = []
def note(frame, event, _):
    if event == "call" and frame.f_code.co_name == "_gcd_import":
        imports.append(frame.f_back.f_code.co_name)
def use():
    service.embed(["a"], timeout=30)
    service.get_metrics(), service.get_model_info(), service.health_check()
use()
sys.setprofile(note)
use()
sys.setprofile(None)
print(imports)
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_future_whose_lock_is_held_does_not_stop_other_calls():
    """As a signal handler holds it that interrupts `future.result()` and waits for a call of its own."""
    engine = start()
    held = hold(engine)
    with held._condition:
        engine.model.open.set()
        assert call(engine, [2]).result(10) == [[1, 2]]
        assert not held.done()
    assert held.result(5) == [[1, 999]]
    stop(engine)


def test_draining_does_not_wait_for_the_call_that_it_interrupts():
    """As a signal handler asks for it in the middle of `submit`; other threads may, and so may this one later."""
    engine = start()
    opened = open_call(engine, lambda parts: parts)
    with pytest.raises(ReentrantCallError, match="inside submit"):
        engine.close(drain=True)
    assert call(engine, [1]).result(5) == [[1, 1]]  # nothing was stopped
    opened.end()
    engine.close(drain=True)
    assert opened.future.result(5) == []
    assert engine.status == "closed"


@pytest.mark.parametrize("leave", ["end", "cancel"])
def test_a_thread_that_has_left_its_calls_may_drain(leave):
    engine = start(max_queued_requests=2)
    for _ in range(3):
        getattr(open_call(engine, lambda parts: parts), leave)()
    engine.close(drain=True)
    assert engine.status == "closed"


def test_a_refused_call_is_not_one_that_this_thread_is_inside_of():
    engine = start(max_queued_requests=1)
    opened = open_call(engine, lambda parts: parts)
    with pytest.raises(ServiceOverloadedError):
        open_call(engine, lambda parts: parts)
    opened.end()
    engine.close(drain=True)
    assert engine.status == "closed"


def test_a_signal_handler_may_close_the_service():
    code = """
def handler(*_):
    service.close()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    while True:
        service.submit(["a"]).result(30)
except AkidbMlxError as error:
    print(type(error).__name__)
service.close()
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (0, "ServiceClosedError\n"), done.stderr


def test_a_finalizer_may_call_the_service():
    """Objects whose `__del__` embeds are collected at any allocation, on any thread."""
    code = """
import gc
gc.set_threshold(50)
outcomes = {"answer": 0, "refused": 0}
class Caller:
    def __init__(self):
        self.itself = self
    def __del__(self):
        try:
            service.embed(["b"], timeout=5)
            outcomes["answer"] += 1
        except ReentrantCallError:
            outcomes["refused"] += 1
end = time.monotonic() + 2
while time.monotonic() < end:
    Caller()
    assert right(service.embed_array(["a"]))
gc.collect()
print("alive", outcomes["answer"] + outcomes["refused"] > 10)
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (0, "alive True\n"), done.stderr


def test_cleaning_up_after_a_collected_object_does_not_wait_on_the_collectors_thread(caplog):
    class Thing:
        pass

    lock, cleaned = threading.Lock(), threading.Event()

    def clean_up():
        with lock:  # which the collector's thread holds
            cleaned.set()

    def fail():
        raise RuntimeError("no matter")

    first, second = Thing(), Thing()
    clean_up_after(first, fail)
    clean_up_after(second, clean_up)
    with lock:
        del first, second
        assert not cleaned.is_set()
    assert cleaned.wait(5)
    assert "could not be closed" in caplog.text


def test_the_default_signal_handling_is_left_alone():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
