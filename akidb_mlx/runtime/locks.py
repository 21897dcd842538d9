"""Locks that neither starve a thread nor let it wait for itself.

A signal handler or the garbage collector may run Python code on a thread that already holds a lock. Waiting for that
lock would never end, so a second acquisition by the same thread raises `ReentrantCallError` at once.
"""

from __future__ import annotations

import threading
from collections import deque
from threading import get_ident

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import ReentrantCallError


class ExclusiveLock:
    """A lock whose second acquisition by one thread raises instead of waiting for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Threads that hold the lock or wait for it. A thread is entered before it acquires and removed after it has
        # released, so that a signal handler finds it here at every step between.
        self._entered: set[int] = set()

    def acquire(self, timeout: float | None = None) -> bool:
        """Acquire the lock, waiting for other threads.

        Args:
            timeout: seconds to wait at most; None waits until it is free.

        Returns:
            Whether it was acquired.

        Raises:
            ReentrantCallError: this thread holds it already, or waits for it further up the stack.
        """
        this = _enter(self._entered)
        acquired = False
        try:
            acquired = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            if not acquired:
                self._entered.discard(this)
        return acquired

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; never waits and never raises."""
        if get_ident() in self._entered or not self._lock.acquire(blocking=False):
            return False
        self._entered.add(get_ident())
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()
        self._entered.discard(get_ident())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class FairLock:
    """A lock that is acquired in the order in which it was asked for, so that a thread that asks often cannot keep it.

    A second acquisition by one thread raises `ReentrantCallError`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()
        self._entered: set[int] = set()

    def acquire(self, timeout: float | None = None) -> bool:
        """Acquire the lock, waiting for the threads that asked before.

        Args:
            timeout: seconds to wait at most; None waits until it is this thread's turn.

        Returns:
            Whether it was acquired.

        Raises:
            ReentrantCallError: this thread holds it already, or waits for it further up the stack.
        """
        this = _enter(self._entered)
        acquired = False
        try:
            acquired = self._acquire(timeout)
        finally:
            if not acquired:
                self._entered.discard(this)
        return acquired

    def release(self) -> None:
        """Release the lock to the thread that has waited the longest."""
        self._release()
        self._entered.discard(get_ident())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def wanted(self) -> bool:
        """Return whether a thread waits for it."""
        return bool(self._waiting)

    def _acquire(self, timeout: float | None) -> bool:
        with self._lock:
            if not self._held:
                self._held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            if turn.acquire(timeout=-1 if timeout is None else timeout):
                return True
        except BaseException:  # Ctrl-C: the turn goes to the next thread, or has come already
            if not self._withdraw(turn):
                self._release()
            raise
        return not self._withdraw(turn)

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Stop waiting for a turn; return False where it has come already."""
        with self._lock:
            waits = turn in self._waiting
            if waits:
                self._waiting.remove(turn)
        return waits

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class Latch:
    """An event that happens once. No lock is held while it is set or waited for, so any code may do either."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: deque[threading.Lock] = deque()

    def set(self) -> None:
        """Wake all threads that wait, now and later."""
        self._is_set = True
        while self._waiters:
            self._waiters.popleft().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the event, `timeout` seconds at most, and return whether it has happened."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if not self._is_set:  # else `set` may have passed before the waiter was entered
            waiter.acquire(timeout=-1 if timeout is None else timeout)
        return self._is_set


class hold_until:  # noqa: N801 - used like a function
    """Hold a lock inside the `with` block, once it is free.

    Raises:
        DeadlineExceededError: the deadline passed while another thread held it.
        ReentrantCallError: this thread holds it already.
    """

    def __init__(self, deadline: Deadline, lock: ExclusiveLock | FairLock) -> None:
        self._deadline = deadline
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(self._deadline.left()):
            raise self._deadline.error()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _enter(entered: set[int]) -> int:
    """Add this thread to those that hold a lock or wait for it, and return its identifier."""
    this = get_ident()
    if this in entered:
        raise ReentrantCallError(
            "a signal handler or a finalizer called into a service on a thread that was inside the same service: the "
            "call would wait for itself; let the handler set a flag, and make the call from ordinary code"
        )
    entered.add(this)
    return this


# Held for each step on the device, by whichever model of this process takes it.
device_lock = FairLock()
