"""Connections to one file, the transactions on them, and SQLite's errors as those of this package."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from embedded_db.errors import (
    DatabaseClosedError,
    DatabaseError,
    DatabaseFileError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    InvalidRecordError,
)
from embedded_db.sqlite.matrix import VectorMatrix
from embedded_db.sqlite.schema import check_version, migrate
from embedded_db.sqlite.transaction import SqliteTransaction
from embedded_db.turns import Turns

MEMORY = ":memory:"
# More threads than this at once wait for their turn.
_MOST_CONNECTIONS = 16
# Pages of the full text that are merged in one transaction.
_MERGED = 1000

_pools: weakref.WeakSet[SqliteConnections] = weakref.WeakSet()
_forked = False


class SqliteConnections:
    """Lends connections to the transactions of all threads; a database in memory has a single one."""

    def __init__(self, path: str, lock_timeout: float) -> None:
        """Open the file and bring its schema up to date; see `EmbeddedDB`."""
        self.path = path
        self.ranking = VectorMatrix()
        self._lock_timeout = lock_timeout
        self._closed = False
        # All that are open, idle or lent.
        self._connections: set[apsw.Connection] = set()
        self._idle: list[apsw.Connection] = []
        # Threads queue here; the file's own lock, which is polled, is left to other processes.
        self._turns = Turns(path, lock_timeout, 1 if path == MEMORY else _MOST_CONNECTIONS)
        _pools.add(self)
        try:
            with self._translated():
                self._idle.append(self._open())
                migrate(self._idle[0], path)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[SqliteTransaction]:
        """Give a transaction that sees one state of the database throughout."""
        with self._lend() as connection:
            connection.execute("BEGIN")
            yield SqliteTransaction(connection)

    @contextmanager
    def write(self) -> Iterator[SqliteTransaction]:
        """Give a transaction that is committed at the end of the block, or undone if the block raises."""
        self._check_open()  # in a forked child, another thread of the parent may hold the lock for ever
        with self._turns.writer(), self._lend() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteTransaction(connection)
            connection.execute("COMMIT")

    def maintain(self) -> None:
        """Tidy the file: statistics for the planner, one segment of the full text, and an empty log."""
        # A part at a time, so that no writer waits long; a negative number begins a merge of all segments.
        pages = -_MERGED
        while True:
            with self.write() as tx:
                before = tx.value("SELECT total_changes()")
                tx.run("INSERT INTO node_text (node_text, rank) VALUES ('merge', :pages)", pages=pages)
                # The statement itself is one.
                if tx.value("SELECT total_changes()") - before < 2:
                    break
            pages = _MERGED
        with self._lend() as connection:
            connection.pragma("optimize")
            connection.pragma("wal_checkpoint", "truncate")

    def close(self) -> None:
        """Close all connections; one that is lent is closed when it comes back. Idempotent."""
        self._closed = True
        while not _forked and (connection := self._take_idle()):
            self._close(connection)

    @contextmanager
    def _lend(self) -> Iterator[apsw.Connection]:
        """Lend a connection; a transaction that is still open when it comes back is undone."""
        self._check_open()
        with self._turns.connection(), self._translated():
            connection = self._take_idle() or self._open()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def _take_idle(self) -> apsw.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: apsw.Connection) -> None:
        # Here, and not where it began, since an interrupt may come right after that. Some errors end it themselves.
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except apsw.Error:
                self._close(connection)  # which undoes it too, and the error that led here is the one to raise
                return
        self._idle.append(connection)
        if self._closed:  # perhaps only just
            self.close()

    def _open(self) -> apsw.Connection:
        self._check_open()
        connection = apsw.Connection(self.path)
        self._connections.add(connection)
        try:
            connection.set_busy_timeout(int(self._lock_timeout * 1000))
            connection.pragma("foreign_keys", True)
            check_version(connection, self.path)  # before anything is written, also the journal's mode
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            # macOS writes to the disk itself only when it is asked to in this way; elsewhere these do nothing.
            connection.pragma("fullfsync", True)
            connection.pragma("checkpoint_fullfsync", True)
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _close(self, connection: apsw.Connection) -> None:
        connection.close()
        self._connections.discard(connection)

    def _check_open(self) -> None:
        if _forked:
            raise DatabaseClosedError(
                f"{self.path} cannot be used here: this process was forked while a database was open, and SQLite does "
                "not survive that; start workers with the 'spawn' method, or fork before the first database is opened"
            )
        if self._closed:
            raise DatabaseClosedError(f"the database {self.path} is closed: open it again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise SQLite's errors as those of this package."""
        try:
            yield
        except (apsw.BusyError, apsw.LockedError) as error:
            raise self._turns.busy("another process") from error
        except apsw.ReadOnlyError as error:
            raise DatabaseReadOnlyError(
                f"{self.path} cannot be written ({error}): allow it, or copy the file"
            ) from error
        except apsw.FullError as error:
            raise DatabaseFullError(f"no space is left for {self.path}: free some space and retry") from error
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise DatabaseFileError(f"{self.path} is no SQLite database, or damaged ({error})") from error
        except (apsw.CantOpenError, apsw.IOError, apsw.PermissionsError, apsw.AuthError) as error:
            raise DatabaseFileError(f"{self.path} cannot be opened, read or written ({error})") from error
        except apsw.TooBigError as error:
            raise InvalidRecordError(f"a value is larger than SQLite can hold ({error})") from error
        except apsw.Error as error:
            raise DatabaseError(f"{self.path}: SQLite failed: {type(error).__name__}: {error}") from error


def _mark_forked() -> None:
    """Refuse all databases in a child of a process that had one open.

    The child has a copy of SQLite's table of locks, so it would take its parent's locks for its own, and its writes
    would go to a log that the parent removes. To close an inherited connection would touch the parent's files.
    """
    global _forked
    inherited = [connection for pool in _pools for connection in pool._connections]
    _forked = _forked or any(not pool._closed or pool._connections for pool in _pools)
    # A reference that is never given back, since the end of the interpreter would close them too.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


os.register_at_fork(after_in_child=_mark_forked)
