"""An event loop on a thread of its own, for calls of any thread."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, wait
from typing import Any, TypeVar

from akidb_mlx.errors import ServiceClosedError
from akidb_mlx.runtime import process
from akidb_mlx.runtime.locks import Latch
from akidb_mlx.runtime.owner import on_owner_thread, run_on_owner_thread

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class LoopThread:
    """Runs coroutines side by side until it is stopped; safe to use from any thread.

    Done-callbacks of its futures run on its thread, where calls that wait are refused.
    """

    def __init__(self, clean_up: Callable[[], Awaitable[None]], owner: str = "embedder") -> None:
        """Start the thread.

        Args:
            clean_up: awaited on the loop after the last coroutine.
            owner: the object that has the thread, for errors.
        """
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._clean_up = clean_up
        self._owner = owner
        self._stopped = asyncio.Event()
        self._refusing = False
        self._stopping = False
        self._ended = False
        self._has_ended = Latch()
        self._open: dict[Future[Any], Coroutine[Any, Any, Any]] = {}
        run_on_owner_thread(self._run)
        process.stop_at_exit(self, survives_fork=True)

    @property
    def is_open(self) -> bool:
        """Return whether coroutines can be started."""
        return not (self._refusing or self._stopping or self.is_forked)

    @property
    def is_forked(self) -> bool:
        """Return whether this process was forked from the one that has the thread."""
        return os.getpid() != self._pid

    @property
    def running(self) -> int:
        """Return how many coroutines have not ended."""
        return len(self._open)

    def start(self, coroutine: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Run a coroutine; cancelling the future cancels it.

        Raises:
            ServiceClosedError: the thread is stopped, or the parent's.
        """
        try:
            self.check_open()
            guarded = self._guard(coroutine)
            try:
                future = asyncio.run_coroutine_threadsafe(guarded, self._loop)
            except RuntimeError:  # the loop was closed meanwhile
                guarded.close()
                raise self._closed_error() from None
        except ServiceClosedError:
            coroutine.close()
            raise
        self._open[future] = coroutine
        future.add_done_callback(self._forget)
        if self._ended:  # the loop may have been closed before it took the coroutine
            self._fail(future, coroutine)
        return future

    def check_open(self) -> None:
        """Fail where no coroutine can be started.

        Raises:
            ServiceClosedError: the thread is stopped, or the parent's.
        """
        if not self.is_open:
            raise self._closed_error()

    def stop(self) -> None:
        """Cancel what runs, whose futures fail with `ServiceClosedError`; waits for nothing."""
        if self.is_forked or self._stopping:
            return
        self._stopping = True
        try:
            self._loop.call_soon_threadsafe(self._stopped.set)
        except RuntimeError:
            logger.debug("the loop has ended already")

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread's end, `timeout` seconds at most, and return whether it has come."""
        return self.is_forked or on_owner_thread() or self._has_ended.wait(timeout)

    def drain(self) -> None:
        """Start nothing more, and wait until everything that was started has ended."""
        self._refusing = True
        if not self.is_forked and not on_owner_thread():
            wait(list(self._open))

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._stopping = True
            self._loop.close()
            self._ended = True
            for future, coroutine in list(self._open.items()):
                self._fail(future, coroutine)
            self._has_ended.set()

    async def _live(self) -> None:
        await self._stopped.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._clean_up()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def _guard(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return await coroutine
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        raise self._closed_error()

    def _forget(self, future: Future[Any]) -> None:
        self._open.pop(future, None)

    def _fail(self, future: Future[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            future.set_exception(self._closed_error())
        except InvalidStateError:  # it has its result
            return
        coroutine.close()

    def _closed_error(self) -> ServiceClosedError:
        if self.is_forked:
            return ServiceClosedError(
                f"this process was forked after the {self._owner} was created; create it in the child"
            )
        return ServiceClosedError(f"the {self._owner} is closed; create a new one")
