"""Threads that run the batches of one model side by side, each on a core of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

from akidb_mlx.runtime.owner import run_on_owner_thread

_Result = TypeVar("_Result")
_Task = tuple[Callable[[], _Result], "Future[_Result]"]


class Lanes(Generic[_Result]):
    """So many threads, which take tasks in the order in which they were handed over."""

    def __init__(self, count: int) -> None:
        """Start the threads."""
        self._count = count
        self._tasks: SimpleQueue[_Task[_Result] | None] = SimpleQueue()
        for _ in range(count):
            run_on_owner_thread(self._run)

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Hand a task over, and return the future of its result."""
        future: Future[_Result] = Future()
        self._tasks.put((work, future))
        return future

    def close(self) -> None:
        """End the threads once they have done all that was handed over."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, future = task
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(error)
            del task, work, future  # not kept while there is nothing to do
