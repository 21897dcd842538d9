"""The weaver: threads that take jobs from the outbox and write vectors, entities, links and summaries."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from akidb_mlx.errors import ConfigurationError, ServiceClosedError, ServiceOverloadedError
from embedded_db import changes, jobs
from embedded_db.activity import Activity
from embedded_db.engine import Connections
from embedded_db.errors import (
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseConnectionError,
    DatabaseError,
    DatabaseFileError,
    ModelMismatchError,
    excerpt,
)
from embedded_db.jobs import Job, JobKind
from embedded_db.reembed import delete_retired
from embedded_db.tasks import Tasks

logger = logging.getLogger(__name__)

# Seconds after which a thread looks for jobs that another process has written.
_POLL_S = 0.5
# Seconds before jobs are tried again that no worker could do, at first and at most.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
# Errors that are no message's fault, so no attempt is counted.
_NO_FAULT = (
    ModelMismatchError,
    ServiceClosedError,
    ServiceOverloadedError,
    DatabaseFileError,
    DatabaseBusyError,
    DatabaseConnectionError,
)


@dataclass(frozen=True)
class Pause:
    """A time in which jobs of a kind are not claimed, because none could be done.

    Attributes:
        reason: the cause.
        is_transient: whether it passes by itself, as a full queue does.
        seconds: how long it is.
        until: its end, by `time.monotonic`.
    """

    reason: str
    is_transient: bool
    seconds: float
    until: float


class Weaver:
    """One thread for each kind of a new message's jobs and one for all others; processes share the work."""

    def __init__(self, connections: Connections, tasks: Tasks, activity: Activity) -> None:
        """Prepare the threads; `start` starts them."""
        self._connections = connections
        self._tasks = tasks
        self._activity = activity
        self._lease_s = jobs.LEASE_S
        self._stopping = threading.Event()
        self._pauses: dict[JobKind, Pause] = {}
        # Jobs that could not be given back yet.
        self._owed: dict[JobKind, list[Job]] = {}
        # By kinds, each of which one thread does.
        self._done: dict[JobKind, int] = dict.fromkeys(get_args(JobKind), 0)
        self._is_tidy = False
        workers: dict[str, tuple[JobKind, ...]] = {
            "embedding": ("embedding",),
            "entities": ("entities",),
            "rest": ("links", "summary"),
        }
        self._wake = {name: threading.Event() for name in workers}
        self._threads = [
            threading.Thread(target=self._loop, args=(name, kinds), name=f"weaver-{name}", daemon=True)
            for name, kinds in workers.items()
        ]
        self.last_event: str | None = None

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there are new jobs."""
        for event in self._wake.values():
            event.set()

    def retry_now(self) -> None:
        """End all pauses."""
        self._pauses.clear()
        self.wake()

    def stop(self) -> None:
        """Ask the threads to end after their batch; waits for nothing."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait for the threads to end, `timeout` seconds at most."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))

    def active_workers(self) -> int:
        """Return how many threads run."""
        return sum(thread.is_alive() for thread in self._threads)

    def pauses(self) -> dict[JobKind, Pause]:
        """Return the pauses of kinds of jobs that cannot be done at present."""
        return self._pauses.copy()

    def done(self) -> int:
        """Return how many jobs this process has done."""
        return sum(self._done.values())

    def work(self, kind: JobKind) -> bool:
        """Do one batch of jobs; False if there was none that can be done."""
        self._release(kind, [])
        pause = self._pauses.get(kind)
        if pause is not None and time.monotonic() < pause.until:
            return False
        with self._connections.read() as tx:
            if not jobs.is_any_open(tx, kind, self._lease_s):
                self._pauses.pop(kind, None)
                return False
        try:
            self._tasks.prepare(kind)
        except DatabaseClosedError:
            raise
        except ConfigurationError as error:  # a missing extra does not come by itself: it is the error of each job
            self._note(f"{kind}: {error}")
        except Exception as error:  # noqa: BLE001 - a model that cannot be loaded is no message's fault
            self._pause(kind, error, is_transient=False)
            return False
        with self._connections.write() as tx:
            claimed = jobs.claim(tx, kind, self._lease_s)
        if not claimed:
            return False
        if kind in jobs.ENRICHMENT:
            self._activity.touch()
        with self._renewing(claimed):
            return self._do(kind, claimed)

    def _loop(self, name: str, kinds: Sequence[JobKind]) -> None:
        while not self._stopping.is_set():
            self._wake[name].clear()
            try:
                allowed = self._activity.kinds()
                worked = any(kind in allowed and self.work(kind) for kind in kinds)
                worked = worked or ("summary" in kinds and self._tidy())
            except DatabaseClosedError:
                return
            except Exception as error:  # noqa: BLE001 - say, a full disk: the jobs are still there, and tried again
                self._note(f"{name}: {_describe(error)}")
                worked = False
            if not worked:
                self._wake[name].wait(_POLL_S)

    def _tidy(self) -> bool:
        """Maintain the database once in every sleep, when nothing else is left to do."""
        asleep = self._activity.level() == "SleepMode"
        if not asleep or self._is_tidy:
            self._is_tidy = asleep
            return False
        self._is_tidy = True
        delete_retired(self._connections)
        changes.trim(self._connections)
        self._connections.maintain()
        self._note("maintenance done", logging.DEBUG)
        return True

    def _do(self, kind: JobKind, claimed: Sequence[Job]) -> bool:
        """Compute and write the results of a batch, if that fails of each job alone; False where none can be done."""
        before = self._done[kind]
        try:
            write = self._tasks.compute(kind, claimed)
            with self._connections.write() as tx:
                finished = jobs.finish(tx, claimed)
                if finished:
                    write(tx, finished)
                # Before the end, so that whoever sees that no job is left sees all of them counted.
                self._done[kind] += len(finished)
        except _NO_FAULT as error:
            self._done[kind] = before
            self._pause(kind, error, is_transient=True)
            self._release(kind, claimed)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a model raises is kept as the error of its job
            self._done[kind] = before
            if self._stopping.is_set():  # the models may have been closed
                self._release(kind, claimed)
            elif len(claimed) > 1:
                for job in claimed:
                    self._do(kind, [job])
            else:
                self._fail(kind, claimed[0], error)
            return True
        self._pauses.pop(kind, None)
        self._note(f"{kind} of {len(claimed)} {'chats' if kind == 'summary' else 'messages'} done", logging.DEBUG)
        return True

    def _fail(self, kind: JobKind, job: Job, error: Exception) -> None:
        message = _describe(error)
        with self._connections.write() as tx:
            jobs.fail(tx, job, message)
        self._note(f"{kind} of a message failed: {message}")

    def _release(self, kind: JobKind, claimed: Sequence[Job]) -> None:
        """Give jobs back, also those of an earlier call that failed, say, because the file was locked for long."""
        owed = self._owed[kind] = [*self._owed.get(kind, ()), *claimed]
        if owed:
            with self._connections.write() as tx:
                jobs.release(tx, owed)
            owed.clear()

    def _pause(self, kind: JobKind, error: Exception, *, is_transient: bool) -> None:
        before = self._pauses.get(kind)
        seconds = _FIRST_PAUSE_S if before is None else min(2 * before.seconds, _LONGEST_PAUSE_S)
        self._pauses[kind] = Pause(_describe(error), is_transient, seconds, time.monotonic() + seconds)
        self._note(f"{kind} waits for {seconds:g} s: {_describe(error)}")

    @contextmanager
    def _renewing(self, claimed: Sequence[Job]) -> Iterator[None]:
        """Renew the lease of jobs until the block ends, so that no other worker does them as well."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(claimed, done), name="weaver-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _renew(self, claimed: Sequence[Job], done: threading.Event) -> None:
        while not done.wait(self._lease_s / 3):
            try:
                with self._connections.write() as tx:
                    jobs.renew(tx, claimed, self._lease_s)
            except DatabaseError as error:  # the results are written only if the lease is still held
                self._note(f"a lease could not be renewed: {_describe(error)}")

    def _note(self, event: str, level: int = logging.WARNING) -> None:
        self.last_event = event
        logger.log(level, "%s", excerpt(event, 500))


def _describe(error: Exception) -> str:
    """Return an error as text that a database can hold."""
    return f"{type(error).__name__}: {error}"[:1000].replace("\0", "?").encode(errors="replace").decode()
