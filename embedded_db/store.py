"""The state of an open database, which its parts share, and their transactions on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from akidb_mlx.closeable import Closeable
from embedded_db.engine import Connections
from embedded_db.models import Models
from embedded_db.weaver import Weaver

_Record = TypeVar("_Record")


class Store(Closeable):
    """The base of `EmbeddedDB` and of its parts."""

    _connections: Connections
    _models: Models
    _weaver: Weaver

    def _read(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._connections.read() as tx:
            return function(tx, *arguments)

    def _write(self, function: Callable[..., _Record], *arguments: Any) -> _Record:
        with self._connections.write() as tx:
            return function(tx, *arguments)
