"""Leases of a pool's models: one for each model, which all of its requests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any

from akidb_mlx.errors import DeadlineExceededError
from akidb_mlx.pool import ModelPool
from akidb_mlx.server.problems import RequestError


class _Lease:
    def __init__(self, entered: asyncio.Future[Any], context: AbstractContextManager[Any]) -> None:
        self.entered = entered
        self.context = context
        self.users = 0


class Leases:
    """Keeps the lease of a model between requests, until another model needs the memory; for one event loop."""

    def __init__(self, pool: ModelPool[Any], waiters: Executor, timeout_s: float) -> None:
        """Begin without leases.

        Args:
            pool: the models.
            waiters: threads that wait for the pool, one for each model at least.
            timeout_s: see `ModelPool.use`.
        """
        self._pool = pool
        self._waiters = waiters
        self._timeout_s = timeout_s
        self._leases: dict[str, _Lease] = {}

    @asynccontextmanager
    async def share(self, name: str) -> AsyncIterator[Any]:
        """Yield a model, which is loaded if need be.

        Raises:
            RequestError: loading it takes too long.
            AkidbMlxError: as `ModelPool.use` raises otherwise.
        """
        lease = self._leases.get(name)
        if lease is None:
            self._give_back_idle()  # the pool may unload those models to make room
            context = self._pool.use(name, self._timeout_s)
            entered = asyncio.get_running_loop().run_in_executor(self._waiters, context.__enter__)
            lease = self._leases[name] = _Lease(entered, context)
            # Before anybody who waits for it wakes up, and asks again.
            entered.add_done_callback(partial(self._forget_failed, name, lease))
        lease.users += 1
        try:
            try:
                model = await asyncio.shield(lease.entered)
            except DeadlineExceededError as error:
                raise RequestError(503, "loading", f"{name} is being loaded; retry") from error
            yield model
        finally:
            lease.users -= 1
            if self._leases.get(name) is not lease:
                _leave_unused(lease)
            elif any(not other.entered.done() for other in self._leases.values()):
                self._give_back_idle()

    def is_used(self, name: str) -> bool:
        """Return whether a request uses a model, or waits for it."""
        return name in self._leases and self._leases[name].users > 0

    def give_back(self, name: str) -> None:
        """Give a model's lease back once nobody uses it; the next request asks the pool anew."""
        lease = self._leases.pop(name, None)
        if lease is not None:
            _leave_unused(lease)

    def _give_back_idle(self) -> None:
        for name in list(self._leases):
            if not self.is_used(name):
                self.give_back(name)

    def _forget_failed(self, name: str, lease: _Lease, entered: asyncio.Future[Any]) -> None:
        if (entered.cancelled() or entered.exception() is not None) and self._leases.get(name) is lease:
            del self._leases[name]


def _leave_unused(lease: _Lease) -> None:
    if not lease.users:
        lease.entered.add_done_callback(partial(_exit, lease.context))


def _exit(context: AbstractContextManager[Any], entered: asyncio.Future[Any]) -> None:
    """Leave a context, if it was ever entered."""
    if not entered.cancelled() and entered.exception() is None:
        context.__exit__(None, None, None)
