"""The calls of an embedder that are not done: their number is bounded, and each is counted when it ends."""

from __future__ import annotations

from collections.abc import Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.metrics import Metrics, Outcome
from akidb_mlx.errors import DeadlineExceededError, ServiceOverloadedError
from akidb_mlx.remote.loop_thread import LoopThread
from akidb_mlx.settings import Settings

_Result = TypeVar("_Result")


class WaitingCalls:
    """Starts calls on the loop's thread, as many as the settings allow."""

    def __init__(self, loop: LoopThread, metrics: Metrics, settings: Settings, address: str) -> None:
        self._loop = loop
        self._metrics = metrics
        self._settings = settings
        self._address = address
        self._tokens: dict[Future[Any], int] = {}

    @property
    def tokens(self) -> int:
        """Return the estimated tokens of the calls that are not done."""
        return sum(list(self._tokens.values()))

    def admit(self, tokens: int) -> None:
        """Refuse a call where too many wait; a single call of any size is taken when nothing else waits.

        Raises:
            ServiceOverloadedError: it is refused.
        """
        settings, waiting, queued = self._settings, self._loop.running, self.tokens
        full = waiting >= settings.max_queued_requests
        if full or (waiting and queued + tokens > settings.max_queued_tokens):
            self._metrics.end_call("refused")
            raise ServiceOverloadedError(
                f"{waiting} calls of about {queued} tokens wait for {self._address}: retry later", 1.0
            )

    def start(self, work: Coroutine[Any, Any, _Result], tokens: int, deadline: Deadline) -> Future[_Result]:
        """Start a call of so many tokens, which was admitted."""
        future = self._loop.start(work)
        self._tokens[future] = tokens
        future.add_done_callback(partial(self._end, deadline))
        return future

    def _end(self, deadline: Deadline, future: Future[Any]) -> None:
        """Count a call that has ended; on the loop's thread, or on one that cancels."""
        self._tokens.pop(future, None)
        self._metrics.end_call(_outcome(future, deadline), deadline.elapsed())


def _outcome(future: Future[Any], deadline: Deadline) -> Outcome:
    if future.cancelled():  # also by a caller that waited until its deadline
        return "timed_out" if deadline.passed else "cancelled"
    error = future.exception()
    if error is None:
        return "completed"
    return "timed_out" if isinstance(error, DeadlineExceededError) else "failed"
