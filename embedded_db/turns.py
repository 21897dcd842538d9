"""Turns of the threads of one database: who writes, and how many use a connection at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embedded_db.errors import DatabaseBusyError


class Turns:
    """Lets threads wait for their turn, for a bounded time."""

    def __init__(self, path: str, timeout_s: float, connections: int) -> None:
        """Let one thread write and some use a connection at once.

        Args:
            path: the database, for errors.
            timeout_s: seconds after which a thread gives up.
            connections: how many threads use a connection at once.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._connections = threading.Semaphore(connections)
        self._writer = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Wait for a connection to be free, and keep it for the block.

        Raises:
            DatabaseBusyError: none was free in time.
        """
        with self._held(self._connections):
            yield

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Wait until no other thread writes, and be the one that does for the block.

        Raises:
            DatabaseBusyError: the turn did not come in time.
        """
        with self._held(self._writer):
            yield

    def busy(self, by: str) -> DatabaseBusyError:
        """Return the error for a database that somebody kept locked."""
        return DatabaseBusyError(
            f"{self._path} was kept locked by {by} for more than {self._timeout_s:g} s: retry, or give a longer "
            "lock_timeout"
        )

    @contextmanager
    def _held(self, lock: threading.Lock | threading.Semaphore) -> Iterator[None]:
        if not lock.acquire(timeout=self._timeout_s):
            raise self.busy("other threads")
        try:
            yield
        finally:
            lock.release()
