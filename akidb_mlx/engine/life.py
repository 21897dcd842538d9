"""One run of an owner thread: its queue, its model and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from threading import get_ident
from typing import Any

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey, Model, ModelFacts
from akidb_mlx.engine.batching import padded_length
from akidb_mlx.engine.metrics import Metrics, Outcome
from akidb_mlx.engine.request_queue import RequestQueue
from akidb_mlx.engine.requests import QueuedSequence, Request, RequestPart, distinct_sequences
from akidb_mlx.engine.step_loop import StepLoop
from akidb_mlx.errors import (
    AkidbMlxError,
    DeadlineExceededError,
    ServiceClosedError,
    ServiceOverloadedError,
    load_error,
)
from akidb_mlx.reports import ModelStatus
from akidb_mlx.runtime.locks import Latch
from akidb_mlx.runtime.owner import check_may_wait, run_on_owner_thread
from akidb_mlx.vectors import TokenIds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineLimits:
    """The bounds of a queue and of patience; see `Settings`."""

    max_queued_requests: int
    max_queued_tokens: int
    coalesce_delay_s: float
    stuck_after_s: float


class EngineLife:
    """A model on its owner thread, from loading to freeing.

    An engine whose owner thread died begins another life. All that belongs to a life is in this object, which is never
    used again, so that two lives cannot mix.

    Attributes:
        queue: the calls that wait.
        ended: set once the model is freed and every call is resolved.
        feeders: the thread of each call that is being fed; whoever drains the queue waits for them.
        status: "loading", "ready", "closed" or "failed"; may be read on any thread.
        was_ready: whether the model was ever loaded.
        loop: runs the model; None while it is loading.
    """

    def __init__(self, load: Callable[[], Model], limits: EngineLimits, metrics: Metrics, facade: str) -> None:
        """Make a life that has not begun; `load` makes the model, on the owner thread; `facade` is for messages."""
        self._load = load
        self._limits = limits
        self._metrics = metrics
        self._facade = facade
        self._loaded: Future[ModelFacts] = Future()
        self.queue = RequestQueue(limits.max_queued_requests, limits.max_queued_tokens, self._count_outcome)
        self.ended = Latch()
        self.feeders: list[int] = []
        self.status: ModelStatus = "loading"
        self.was_ready = False
        self.loop: StepLoop | None = None

    def begin(self) -> None:
        """Start to load the model on an owner thread."""
        run_on_owner_thread(self._run)

    def wait_until_loaded(self, timeout: float | None = None) -> ModelFacts:
        """Wait until the model is loaded, `timeout` seconds at most.

        Raises:
            AkidbMlxError: the error of loading.
            DeadlineExceededError: the model is not loaded yet.
            ReentrantCallError: this is an owner thread, which may not wait.
        """
        if not self._loaded.done():
            check_may_wait()
        try:
            return self._loaded.result(timeout)
        except FutureTimeoutError as error:
            if isinstance(error, DeadlineExceededError):
                raise
            raise DeadlineExceededError("not done within the call's timeout: the model is still loading") from None

    def open_call(
        self,
        combine: Callable[[list[Any]], Any],
        expected_tokens: int,
        deadline: Deadline,
        isolated: bool = False,
    ) -> EngineCall:
        """Admit a call; see `Engine.open_call`."""
        request = Request(combine, expected_tokens, deadline, isolated)
        self.feeders.append(get_ident())
        try:
            self.queue.admit(request)
        except BaseException as error:
            self.feeders.remove(get_ident())
            if isinstance(error, ServiceOverloadedError):
                self._metrics.end_call("refused")
            raise
        return EngineCall(self, request)

    def closed_error(self) -> ServiceClosedError:
        """Return the error of a call that comes too late."""
        if self.status == "failed":
            return ServiceClosedError(f"the service's owner thread died; create a new {self._facade}")
        return ServiceClosedError(f"the service is closed; create a new {self._facade}")

    def _run(self) -> None:
        outcome: ModelStatus = "failed"
        try:
            try:
                model = self._load()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the model
                self._loaded.set_exception(load_error(error))
                return
            try:
                self.loop = StepLoop(model, self.queue, self._metrics, self._limits.coalesce_delay_s)
                self.was_ready = True
                self.status = "ready"
                self._loaded.set_result(model.facts)
                self.loop.run()
            finally:
                model.close()
            outcome = "closed"
        finally:
            self.status = outcome
            self.queue.fail_all(self.closed_error())
            self.ended.set()

    def _count_outcome(self, request: Request) -> None:
        outcome: Outcome = "completed"
        if request.future.was_cancelled:
            outcome = "cancelled"
        elif error := request.future.error:
            outcome = "timed_out" if isinstance(error, DeadlineExceededError) else "failed"
        self._metrics.end_call(outcome, request.age)
        if request.begun is not None:
            self._metrics.observe("wait", request.begun - request.deadline.began)


class EngineCall:
    """An admitted call, which is fed with `add` and ended with `end`; all of it belongs to one life of the engine.

    Attributes:
        future: resolved whatever happens; can be cancelled until it is done.
    """

    def __init__(self, life: EngineLife, request: Request) -> None:
        self.future: Future[Any] = request.future
        self._life = life
        self._request = request
        self._thread: int | None = get_ident()

    def add(
        self,
        sequences: Sequence[TokenIds],
        texts: Sequence[int],
        key: BatchKey,
        finish: Callable[[Any], Any],
        expected_tokens: int,
        segments: Iterable[int] = repeat(0),
    ) -> None:
        """Queue some sequences of the call, none empty.

        Args:
            sequences: their token ids.
            texts: for each, the index of its text in the call.
            key: all that they have in common.
            finish: makes a part of the result of their rows, in order, on the owner thread.
            expected_tokens: the number that had been expected of them.
            segments: for each, how many of its tokens are of the first token type; 0 where the model is not told.

        Raises:
            ServiceClosedError: the engine was closed meanwhile.
            DeadlineExceededError: the deadline passed while the model was loaded again.
        """
        part, facts = self._open_part(texts, key, finish)
        self._queue(part, distinct_sequences(part, sequences, segments), facts, expected_tokens)

    def add_packed(
        self,
        ids: TokenIds,
        lengths: TokenIds,
        texts: Sequence[int],
        finish: Callable[[Any], Any],
        expected_tokens: int,
    ) -> None:
        """Queue some sequences of the call for a model that takes them packed; see `add`.

        Args:
            ids: the tokens of all sequences, one after another.
            lengths: the length of each, at least 1.
            texts: for each, the index of its text in the call.
            finish: likewise.
            expected_tokens: likewise.
        """
        part, facts = self._open_part(texts, BatchKey(), finish)
        packed = QueuedSequence(ids, part, list(range(len(lengths))), lengths=lengths)
        self._queue(part, [packed] if len(lengths) else [], facts, expected_tokens)

    def _open_part(
        self, texts: Sequence[int], key: BatchKey, finish: Callable[[Any], Any]
    ) -> tuple[RequestPart, ModelFacts]:
        """Return a new part of the call, and the facts of the model, once it is loaded."""
        facts = self._life.wait_until_loaded(self._request.deadline.left())
        return RequestPart(self._request, texts, None if facts.ragged else facts.dimension, key, finish), facts

    def _queue(
        self, part: RequestPart, sequences: list[QueuedSequence], facts: ModelFacts, expected_tokens: int
    ) -> None:
        padded = partial(padded_length, facts=facts, floor=part.key.floor)
        self._life.queue.add(part, sequences, padded, expected_tokens)

    def end(self) -> None:
        """Note that nothing more is added."""
        self._leave()
        if self._request.isolated:
            self._life.queue.start(self._request)
        self._request.end()

    def fail(self, error: AkidbMlxError) -> None:
        """Resolve the call with an error, unless it is done."""
        self._leave()
        self._request.fail(error)

    def cancel(self) -> None:
        """Drop the call, unless it is done."""
        self._leave()
        self.future.cancel()

    def _leave(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._life.feeders.remove(thread)
