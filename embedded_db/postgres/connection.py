"""Connections to a database of a server, the transactions on them, and the server's errors as this package's."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import conninfo, errors
from psycopg.types.string import TextLoader

from embedded_db.errors import (
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseConnectionError,
    DatabaseError,
    DatabaseFileError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    InvalidRecordError,
)
from embedded_db.postgres.ranking import ServerRanking
from embedded_db.postgres.schema import TABLES, WRITER_LOCK, prepare, set_search_path
from embedded_db.postgres.transaction import PostgresTransaction, UnitVector, UnitVectorDumper
from embedded_db.turns import Turns

# More threads than this at once wait for their turn.
_MOST_CONNECTIONS = 16
# Seconds and milliseconds after which a server that does not answer is given up, unless the URL says otherwise.
_DEFAULTS = {"connect_timeout": "10", "tcp_user_timeout": "30000", "application_name": "akidb-mlx"}

_Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresConnections:
    """Lends connections to the transactions of all threads, and makes new ones after the server was away."""

    def __init__(self, url: str, lock_timeout: float) -> None:
        """Connect and bring the schema up to date; see `EmbeddedDB`."""
        self._parameters = _parse_url(url)
        self.path = _shown(self._parameters)
        self.ranking = ServerRanking()
        self._lock_timeout = lock_timeout
        self._process = os.getpid()
        self._closed = False
        self._idle: list[_Connection] = []
        # Threads that want to write queue here without a connection; the server's lock is left to other processes.
        self._turns = Turns(self.path, lock_timeout, _MOST_CONNECTIONS)
        # A database that is dropped without being closed leaves none open.
        weakref.finalize(self, _close_all, self._idle, self._process)
        with self._translated():
            connection = self._open()
            try:
                prepare(connection, self.path)
                set_search_path(connection)
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)

    @contextmanager
    def read(self) -> Iterator[PostgresTransaction]:
        """Give a transaction that sees one state of the database throughout."""
        with self._lend("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            yield PostgresTransaction(connection)

    @contextmanager
    def write(self) -> Iterator[PostgresTransaction]:
        """Give a transaction that is committed at the end of the block, or undone if the block raises.

        Those of one database take turns, so that what one has read is still so when it writes.
        """
        self._check_open()  # in a forked child, another thread of the parent may hold the lock for ever
        # Read committed, whatever the server's default is: another snapshot would be older than the lock.
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        with self._turns.writer(), self._lend(begin) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [WRITER_LOCK])
            yield PostgresTransaction(connection)
            connection.execute("COMMIT")

    def maintain(self) -> None:
        """Tidy the tables: statistics for the planner, and no rows that are gone."""
        self._check_open()
        with self._translated():
            connection = self._open()
            try:
                connection.execute("VACUUM (ANALYZE) " + ", ".join(TABLES))
            finally:
                connection.close()

    def close(self) -> None:
        """Close all connections; one that is lent is closed when it comes back. Idempotent."""
        self._closed = True
        _close_all(self._idle, self._process)

    @contextmanager
    def _lend(self, begin: str) -> Iterator[_Connection]:
        """Lend a connection with a transaction; one that is still open when it comes back is undone."""
        self._check_open()
        with self._turns.connection(), self._translated():
            connection = self._begin(begin)
            try:
                yield connection
            finally:
                self._take_back(connection)

    def _begin(self, begin: str) -> _Connection:
        """Return a connection with a transaction; those that the server has closed meanwhile are dropped."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
                try:
                    connection.execute(begin)
                except BaseException:
                    connection.close()
                    raise
                return connection
            try:
                connection.execute(begin)
            except psycopg.OperationalError:
                connection.close()
            else:
                return connection

    def _take_back(self, connection: _Connection) -> None:
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()  # which undoes it too, and the error that led here is the one to raise
            return
        self._idle.append(connection)
        if self._closed:  # perhaps only just
            self.close()

    def _open(self) -> _Connection:
        self._check_open()
        connection: _Connection = psycopg.connect(**self._parameters, autocommit=True)
        try:
            # 0 would be to wait for ever.
            milliseconds = max(1, int(self._lock_timeout * 1000))
            connection.execute("SELECT set_config('lock_timeout', %s, FALSE)", [f"{milliseconds}ms"])
            # What is acknowledged survives a crash of the server, also of one that promises less by default.
            connection.execute(
                "SELECT set_config(name, 'on', FALSE) FROM pg_settings"
                " WHERE name = 'synchronous_commit' AND setting = 'off'"
            )
            set_search_path(connection)
            connection.adapters.register_loader("jsonb", TextLoader)
            connection.adapters.register_dumper(UnitVector, UnitVectorDumper)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise DatabaseClosedError(
                f"{self.path} was opened before this process was forked, and two processes cannot share a connection: "
                "open it again here"
            )
        if self._closed:
            raise DatabaseClosedError(f"the database {self.path} is closed: open it again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise PostgreSQL's errors as those of this package."""
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error) -> DatabaseError:
        text = " ".join(str(error).split())
        if isinstance(error, errors.LockNotAvailable):
            return self._turns.busy("another connection")
        if isinstance(error, (errors.QueryCanceled, errors.DeadlockDetected, errors.SerializationFailure)):
            return DatabaseBusyError(f"{self.path} did not get to it ({text}): retry")
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return DatabaseReadOnlyError(f"{self.path} cannot be written ({text}): connect to the primary server")
        if isinstance(error, errors.InsufficientPrivilege):
            return DatabaseReadOnlyError(
                f"the role {self._parameters.get('user', 'of this process')!r} may not do this in {self.path} ({text}):"
                " let the owner GRANT it"
            )
        if isinstance(error, (errors.DiskFull, errors.OutOfMemory)):
            return DatabaseFullError(f"no space is left for {self.path} ({text}): free some space and retry")
        if isinstance(error, (errors.DataCorrupted, errors.IndexCorrupted)):
            return DatabaseFileError(f"{self.path} is damaged ({text})")
        if isinstance(error, (errors.ProgramLimitExceeded, errors.DataError)):
            return InvalidRecordError(f"a value is none that PostgreSQL can hold ({text})")
        if isinstance(error, psycopg.OperationalError):
            return DatabaseConnectionError(
                f"{self.path} cannot be reached, or ended the connection ({text}): see that the server runs and that "
                "address, role and password are right; a transaction that was open is undone"
            )
        return DatabaseError(f"{self.path}: PostgreSQL failed: {type(error).__name__}: {text}")


def _close_all(idle: list[_Connection], process: int) -> None:
    """Close idle connections, in the process that opened them."""
    while idle and os.getpid() == process:
        with suppress(IndexError):  # another thread took the last one
            idle.pop().close()


def _parse_url(url: str) -> dict[str, Any]:
    """Return the parameters of a URL; it is in no message, since it may hold a password."""
    try:
        given = {} if "\0" in url else conninfo.conninfo_to_dict(url)
    except (psycopg.Error, UnicodeEncodeError):
        given = {}
    # Where a password is not escaped, parts of it are taken for a port or a name.
    name, host, port = (str(given.get(key, "")) for key in ("dbname", "host", "port"))
    if not given or "@" in name + host or "/" in name or not re.fullmatch(r"[0-9,]*", port):
        raise InvalidRecordError(
            "the URL of the database cannot be read: it is postgresql://user:password@host:port/name, in which special "
            "characters of a password are escaped (':' as %3A, '/' as %2F, '@' as %40)"
        )
    return {**_DEFAULTS, **given, "client_encoding": "UTF8"}


def _shown(parameters: dict[str, Any]) -> str:
    """Return an address without a password."""
    user, host, port, name = (parameters.get(key) for key in ("user", "host", "port", "dbname"))
    return f"postgresql://{f'{user}@' if user else ''}{host or ''}{f':{port}' if port else ''}/{name or ''}"
