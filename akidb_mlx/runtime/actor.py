"""State that one thread owns and changes message by message."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Generic, TypeVar

from akidb_mlx.errors import ReentrantCallError
from akidb_mlx.runtime import process
from akidb_mlx.runtime.locks import Latch

logger = logging.getLogger(__name__)

_Message = Callable[[], object]
_Result = TypeVar("_Result")


class Actor(ABC):
    """An object whose state is changed by one thread only, which exists while there is something to do.

    No Ctrl-C interrupts that thread half-way through a change, and no caller holds a lock that a signal handler or a
    finalizer could wait for.
    """

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        # `put` may be called from signal handlers and finalizers.
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._running = threading.Lock()  # held by the thread; nobody waits for it
        self._thread_id: int | None = None

    @abstractmethod
    def _advance(self) -> float | None:
        """Act on the state after messages changed it or time passed, on the thread.

        Returns:
            Seconds until there is more to do if no message comes; None for never.
        """

    @abstractmethod
    def _is_busy(self) -> bool:
        """Return whether messages or a moment are still waited for."""

    @property
    def is_running(self) -> bool:
        """Return whether the thread exists."""
        return self._running.locked()

    def post(self, message: _Message) -> None:
        """Leave a message, which is run while the thread exists or when the next is sent; never waits or fails."""
        self._inbox.put(message)

    def send(self, message: _Message) -> None:
        """Leave a message and see that it is run; waits for nothing.

        Raises:
            ReentrantCallError: a finalizer interrupted the thread itself.
            ServiceClosedError: this process was forked from one that had a model.
        """
        if get_ident() == self._thread_id:
            raise ReentrantCallError(
                f"a finalizer called into the object that it interrupted, on the thread {self._thread_name}: the call "
                "would wait for itself; make it from ordinary code"
            )
        process.check_not_forked()
        self._inbox.put(message)
        if not self.is_running:  # of two that are started side by side one ends at once
            threading.Thread(target=self._run, name=self._thread_name, daemon=True).start()

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Run a function as a message and return its result; see `send`."""
        call = _Call(function)
        self.send(call)
        return call.wait()

    def _run(self) -> None:
        """Run messages while the state is busy."""
        while self._running.acquire(blocking=False):
            self._thread_id = get_ident()
            try:
                timeout: float | None = 0.0
                while self._is_busy() or not self._inbox.empty():
                    timeout = self._run_messages(timeout)
            finally:
                self._thread_id = None
                self._running.release()
            if self._inbox.empty():
                return  # else a message was left after the loop, by a sender who still saw this thread

    def _run_messages(self, timeout: float | None) -> float | None:
        """Wait for a message, run all that are there, and act on the state that they leave."""
        with suppress(Empty):
            message = self._inbox.get(timeout=timeout)
            while True:
                self._try(message)
                message = self._inbox.get_nowait()
        return self._try(self._advance)

    def _try(self, function: Callable[[], _Result]) -> _Result | None:
        try:
            return function()
        except Exception:
            logger.exception("%s: a step failed", self._thread_name)  # and those who wait need the next
            return None


class _Call(Generic[_Result]):
    """A message whose result is waited for."""

    def __init__(self, function: Callable[[], _Result]) -> None:
        self._function = function
        self._result: list[_Result] = []
        self._error: BaseException | None = None
        self._done = Latch()

    def __call__(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            self._error = error
        finally:
            self._done.set()

    def wait(self) -> _Result:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]
