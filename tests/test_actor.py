"""State that one thread changes, message by message."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from akidb_mlx.runtime.actor import Actor
from tests.support import wait_until

LONG = 60


class Counter(Actor):
    """Counts on a thread that exists while `open` is set."""

    def __init__(self) -> None:
        super().__init__("counter")
        self.open = False
        self.count = 0
        self.advanced = threading.Event()

    def add(self) -> int:
        count = self.count
        time.sleep(0)  # lets other threads run
        self.count = count + 1
        return self.count

    def set_open(self, is_open: bool) -> None:
        self.open = is_open

    def fail(self) -> None:
        raise ValueError("no such number")

    def _advance(self) -> float | None:
        self.advanced.set()
        return None

    def _is_busy(self) -> bool:
        return self.open


def test_messages_of_all_threads_run_one_by_one():
    counter = Counter()
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: counter.call(counter.add), range(500)))
    assert sorted(results) == list(range(1, 501))
    wait_until(lambda: not counter.is_running)


def test_the_thread_exists_while_there_is_something_to_do():
    counter = Counter()
    counter.call(lambda: counter.set_open(True))
    assert counter.is_running
    counter.advanced.clear()
    counter.post(counter.add)
    assert counter.advanced.wait(LONG)
    counter.call(lambda: counter.set_open(False))
    wait_until(lambda: not counter.is_running)
    counter.post(counter.add)
    assert counter.count == 1
    assert counter.call(counter.add) == 3  # what was left in between runs first


def test_a_message_that_fails_stops_nothing(caplog):
    counter = Counter()
    with pytest.raises(ValueError, match="no such number"):
        counter.call(counter.fail)
    counter.send(counter.fail)
    assert counter.call(counter.add) == 1
    assert "no such number" in caplog.text


def test_a_message_that_comes_as_the_thread_ends_is_run():
    """Its sender still sees the thread, and starts none."""
    counter = Counter()

    class SlowLock:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.acquire, self.locked = self.lock.acquire, self.lock.locked

        def release(self) -> None:
            if counter.count < 2:
                counter.send(counter.add)
            self.lock.release()

    counter._running = SlowLock()
    counter.send(counter.add)
    wait_until(lambda: counter.count == 2 and not counter.is_running)


def test_a_second_thread_ends_at_once():
    counter = Counter()
    counter.call(lambda: counter.set_open(True))
    counter._run()
    assert counter.is_running
    counter.call(lambda: counter.set_open(False))
