"""The state of an open database, which its parts share, and their transactions on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from akidb_mlx.closeable import Closeable
from embedded_db.activity import Activity
from embedded_db.engine import Connections, Transaction
from embedded_db.models import Models
from embedded_db.weaver import Weaver

_Record = TypeVar("_Record")


class Store(Closeable):
    """The base of `EmbeddedDB` and of its parts."""

    _connections: Connections
    _models: Models
    _weaver: Weaver
    _activity: Activity

    def _read(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._reading() as tx:
            return function(tx, *arguments)

    def _write(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._writing() as tx:
            return function(tx, *arguments)

    def _reading(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that reads, as an activity of the application."""
        self._activity.touch()
        return self._connections.read()

    def _writing(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that writes, as an activity of the application."""
        self._activity.touch()
        return self._connections.write()
