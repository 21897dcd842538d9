"""The owner thread's work: it alone loads a model, and runs what waits in the queue, batch by batch.

Any thread may submit calls. Each call's future is resolved whatever happens: with its result as soon as its own texts
are done, with an error of its own, or with `ServiceClosedError` when the engine closes, fails or the process ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.engine.batching import Batch, TokenIds, padded_length
from akidb_mlx.engine.metrics import Metrics, Outcome
from akidb_mlx.engine.request_queue import RequestQueue
from akidb_mlx.engine.requests import Part, Request, Vectors
from akidb_mlx.errors import (
    AkidbMlxError,
    DeadlineExceededError,
    ModelLoadError,
    ServiceClosedError,
    ServiceOverloadedError,
)
from akidb_mlx.runtime import process
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.runtime.owner import run_on_owner_thread

logger = logging.getLogger(__name__)

EngineStatus = Literal["loading", "ready", "closed", "failed"]

# How long `close()` waits for the batches that are running. A process that exits does not wait longer either.
_CLOSE_TIMEOUT_S = 4.0
# How long nothing must have waited before memory that is kept for reuse is given back.
_IDLE_S = 10.0
# How often an owner thread that died is replaced.
_RESTARTS = 1


@dataclass(frozen=True)
class ModelFacts:
    """What may be known of a loaded model on any thread.

    Attributes:
        dimension: size of the vectors it computes.
        max_tokens: most tokens of one sequence.
        token_budget: most tokens that one batch should have, padding included.
        lanes: how many batches it runs side by side.
        pipelined: whether a step should be handed to the device while the one before it runs.
        bucket_lengths: whether sequences should be padded to few distinct lengths.
        shares_prefixes: whether it can run what several sequences begin with once.
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
        weight_bytes: memory that its weights take.
    """

    dimension: int
    max_tokens: int
    token_budget: int
    lanes: int
    pipelined: bool
    bucket_lengths: bool
    shares_prefixes: bool
    device: str
    precision: str
    weight_bytes: int

    def padded(self, length: int) -> int:
        """What a sequence of `length` tokens is padded to, before it joins others."""
        return padded_length(length, self.max_tokens) if self.bucket_lengths else length


class Step(Protocol):
    """Batches that were handed to the device."""

    def result(self) -> list[NDArray[np.float32]]:
        """Wait, and return (batch, dimension) for each batch."""
        ...


class Model(Protocol):
    """What the engine runs; see `EmbeddingModel`."""

    facts: ModelFacts

    def start(self, batches: Sequence[Batch]) -> Step:
        """Hand up to `facts.lanes` batches to the device."""
        ...

    def memory(self) -> dict[str, int]:
        """Bytes that the device's allocator holds."""
        ...

    def release_memory(self) -> None:
        """Give back what is only kept for reuse."""
        ...

    def close(self) -> None:
        """Free the weights; the last call."""
        ...


# What became of batches that were handed over: what computes, what came of it, or what went wrong.
_Started = Step | list[NDArray[np.float32]] | BaseException


@dataclass(frozen=True)
class EngineLimits:
    """What bounds the queue and the patience; see `Settings`."""

    max_queued_requests: int
    max_queued_tokens: int
    coalesce_delay_s: float
    stuck_after_s: float


class Engine:
    """One model and its queue.

    Attributes:
        status: "loading", "ready", "closed" or "failed"; may be read from any thread.
        memory: what the device's allocator held after the latest step, in bytes.
        metrics: what was counted and timed.
    """

    def __init__(self, load: Callable[[], Model], limits: EngineLimits) -> None:
        """Start loading the model on an owner thread.

        Args:
            load: makes the model; called on the owner thread, again if that has to be replaced.
            limits: bounds of the queue.

        Raises:
            ServiceClosedError: this process was forked from one that had an engine.
        """
        process.check_not_forked()
        self.status: EngineStatus = "loading"
        self.memory: dict[str, int] = {}
        self.metrics = Metrics()
        self._load = load
        self._limits = limits
        self._draining = False
        self._restarts = 0
        self._restartable = False
        self._step_began: float | None = None
        # Reentrant: the garbage collector may close an engine on a thread that is inside one of these methods.
        self._lock = threading.RLock()
        process.stop_at_exit(self)
        self._begin()

    def wait_until_loaded(self) -> ModelFacts:
        """Block until the model is loaded.

        Raises:
            AkidbMlxError: what loading raised.
        """
        return self._loaded.result()

    def open_request(
        self, combine: Callable[[list[Vectors]], Any], expected_tokens: int, timeout: float | None
    ) -> Request:
        """Admit a call, which is then fed with `add` and ended with its own `end`.

        Args:
            combine: makes the call's result of its finished parts, in order.
            expected_tokens: an estimate, until the parts are added.
            timeout: seconds after which what has not run is dropped; None for never.

        Raises:
            ServiceOverloadedError: the queue is full.
            ServiceClosedError: the engine takes no more calls.
        """
        self.check_open()
        request = Request(combine, expected_tokens, None if timeout is None else time.monotonic() + timeout)
        try:
            self._queue.admit(request)
        except ServiceOverloadedError:
            self.metrics.end_call("refused")
            raise
        request.future.add_done_callback(lambda future: self._count_outcome(request, future))
        return request

    def add(
        self,
        request: Request,
        sequences: Sequence[TokenIds],
        texts: Sequence[int],
        prefix: bytes,
        finish: Callable[[Vectors], Vectors],
        expected_tokens: int,
    ) -> None:
        """Queue some sequences of a call, none empty.

        Args:
            request: the call.
            sequences: their token ids.
            texts: for each, the index of its text in the call.
            prefix: bytes of the token ids that all begin with, left out of them.
            finish: what becomes of their pooled vectors (sequences, native dimension), on the owner thread.
            expected_tokens: what had been expected of them.

        Raises:
            ServiceClosedError: the engine was closed meanwhile.
        """
        facts = self.wait_until_loaded()
        part = Part(request, sequences, texts, facts.dimension, prefix, finish)
        self._queue.add(part, facts.padded, expected_tokens)

    def check_open(self) -> None:
        """Fail at once where a call would; replace, once, an owner thread that died.

        Raises:
            ServiceClosedError: the engine takes no more calls, or this is a forked child.
        """
        process.check_not_forked()
        if self.status == "failed" and self._restartable:
            self._restart()
        if self._queue.closed or self.status in ("closed", "failed"):
            raise self._closed_error()

    def close(self, drain: bool = False) -> None:
        """End: finish the batches that are running, fail every call that is not done, and free the model. Idempotent.

        Args:
            drain: finish every call that was admitted first, however long that takes.
        """
        if process.is_forked():
            return  # the owner thread is the parent's
        with self._lock:
            self._draining = drain
            self._restartable = False
            self._queue.close()
        if threading.current_thread() is self._owner:
            return
        if not self._ended.wait(None if drain else _CLOSE_TIMEOUT_S):
            logger.warning("the forward pass that is running did not end within %.0f s", _CLOSE_TIMEOUT_S)

    def stop(self) -> None:
        with self._lock:
            self._draining = False
            self._restartable = False
            self._queue.close()

    def join(self, timeout: float | None) -> bool:
        return self._ended.wait(timeout)

    def health(self) -> tuple[Literal["ok", "degraded", "failed"], str]:
        """How the engine is, and why; takes no lock, so that it also answers while a forward pass hangs."""
        if process.is_forked():
            return "failed", "this process was forked from the one that has the model"
        if self.status == "failed" and self._restartable:
            return "failed", "the owner thread died; the next call restarts it"
        if self.status in ("closed", "failed"):
            return "failed", self.status
        began = self._step_began
        running = 0.0 if began is None else time.monotonic() - began
        if running > self._limits.stuck_after_s:
            return "failed", f"the forward pass has been running for {running:.0f} s"
        if self.status == "loading":
            return "degraded", "loading"
        if self._queue.load >= 1:
            return "degraded", "the queue is full"
        if self._restarts:
            return "degraded", "the owner thread died and was replaced"
        return "ok", "ready"

    def queue_depth(self) -> dict[str, int]:
        """How much waits."""
        return {"requests": self._queue.requests, "tokens": self._queue.tokens}

    def _begin(self) -> None:
        """Give the engine a queue, a thread and a model."""
        self.status = "loading"
        self._queue = RequestQueue(self._limits.max_queued_requests, self._limits.max_queued_tokens)
        self._loaded: Future[ModelFacts] = Future()
        self._ended = threading.Event()
        self._owner: threading.Thread | None = None
        run_on_owner_thread(self._own)

    def _restart(self) -> None:
        with self._lock:
            if self._restartable:
                self._restartable = False
                self._restarts += 1
                logger.warning("the owner thread died; loading the model again on another")
                self._begin()

    def _own(self) -> None:
        """What the owner thread does from the engine's start to its end."""
        self._owner = threading.current_thread()
        outcome: EngineStatus = "failed"
        try:
            try:
                with device_lock:
                    model = self._load()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the model
                self._loaded.set_exception(load_error(error))
                return
            self.memory = model.memory()
            self.status = "ready"
            self._loaded.set_result(model.facts)
            self._restartable = self._restarts < _RESTARTS
            try:
                self._serve(model)
            finally:
                model.close()
            self._restartable = False
            outcome = "closed"
        finally:
            self._owner = None
            self._step_began = None
            self._end(outcome)

    def _serve(self, model: Model) -> None:
        """Run what waits until the queue is closed, and empty if it is to be drained."""
        queue, facts = self._queue, model.facts
        idle = False
        running: tuple[list[Batch], _Started] | None = None
        while True:
            if running is None:
                waits = queue.wait(None if idle else _IDLE_S, self._limits.coalesce_delay_s)
                if not waits and not queue.closed and not idle:
                    model.release_memory()
                    self.memory = model.memory()
                    idle = True
            ended = queue.closed and not (self._draining and queue.requests)
            batches = [] if ended else queue.take(facts.lanes, facts.token_budget)
            started = self._start(model, batches) if batches else None
            if not facts.pipelined and started is not None:
                running, started = started, None
            if running is not None:
                self._finish(model, *running)
                self._step_began = time.monotonic() if started else None
                self.memory = model.memory()
                idle = False
            running = started
            if ended and running is None:
                return

    def _start(self, model: Model, batches: list[Batch]) -> tuple[list[Batch], _Started]:
        """Hand batches to the device; what goes wrong is dealt with when they are finished."""
        self._step_began = self._step_began or time.monotonic()
        self._count_batches(batches, model.facts)
        try:
            with device_lock:
                step = model.start(batches)
                # Where steps do not overlap, one turn is enough: others who want the device may have long ones.
                return batches, step if model.facts.pipelined else step.result()
        except BaseException as error:  # noqa: BLE001 - a native panic is no Exception, and the next call must succeed
            return batches, error

    def _finish(self, model: Model, batches: list[Batch], step: _Started) -> None:
        """Wait for batches, and hand out their vectors or what went wrong."""
        began = self._step_began or time.monotonic()
        try:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, list):
                results = step
            else:
                with device_lock:
                    results = step.result()
        except BaseException as error:  # noqa: BLE001 - likewise
            for batch in batches:
                self._isolate(model, batch, error if len(batches) == 1 else None)
            return
        computed = time.monotonic()
        self._queue.measured(sum(batch.tokens for batch in batches), computed - began)
        self.metrics.observe("compute", computed - began)
        for batch, vectors in zip(batches, results, strict=True):
            self._deliver(batch, vectors)
        self.metrics.observe("finish", time.monotonic() - computed)

    def _isolate(self, model: Model, batch: Batch, error: BaseException | None) -> None:
        """Run a batch again, or its halves where it failed with `error`, until those at fault are found."""
        if error is not None and batch.size == 1:
            logger.warning("a text failed alone: %s: %s", type(error).__name__, error)
            for _, item in batch.items():
                item.part.request.fail(error, item)
            return
        for part in (batch,) if error is None else batch.halves():
            self._step_began = time.monotonic()
            try:
                with device_lock:
                    (vectors,) = model.start([part]).result()
            except BaseException as reason:  # noqa: BLE001 - likewise
                self._isolate(model, part, reason)
            else:
                self._deliver(part, vectors)

    def _deliver(self, batch: Batch, vectors: NDArray[np.float32]) -> None:
        """Hand each vector to the calls that wait for it, and finish the parts that are complete."""
        complete: list[Part] = []
        for row, item in batch.items():
            part = item.part
            if part.request.future.done():
                continue
            part.pooled[item.rows] = vectors[row]
            part.missing -= len(item.rows)
            if not part.missing:
                complete.append(part)
        for part in complete:
            try:
                part.request.finish_part(part)
            except BaseException as error:  # noqa: BLE001 - the call's own fault, and the next must succeed
                part.request.fail(error)

    def _end(self, status: EngineStatus) -> None:
        """Take no more calls and fail those that are not done."""
        with self._lock:
            self.status = status
            self._queue.close()
        self._queue.fail_all(self._closed_error())
        self._ended.set()

    def _closed_error(self) -> ServiceClosedError:
        if self.status == "failed":
            return ServiceClosedError("the service's owner thread died; create a new EmbeddingService")
        return ServiceClosedError("the service is closed; create a new EmbeddingService")

    def _count_batches(self, batches: list[Batch], facts: ModelFacts) -> None:
        items = [item for batch in batches for _, item in batch.items()]
        computed = sum(batch.size for batch in batches)
        self.metrics.count(
            batches=len(batches),
            sequences=computed,
            shared_sequences=sum(len(item.rows) for item in items) - computed,
            tokens=sum(batch.tokens for batch in batches),
            padded_tokens=sum(batch.padded_tokens for batch in batches),
            room=facts.lanes * facts.token_budget,
        )

    def _count_outcome(self, request: Request, future: Future[Any]) -> None:
        outcome: Outcome = "completed"
        if future.cancelled():
            outcome = "cancelled"
        elif error := future.exception():
            outcome = "timed_out" if isinstance(error, DeadlineExceededError) else "failed"
        self.metrics.end_call(outcome, time.monotonic() - request.submitted)
        if request.begun is not None:
            self.metrics.observe("wait", request.begun - request.submitted)
        request.let_go()


def load_error(error: BaseException) -> AkidbMlxError:
    """What went wrong while a model was loaded, as an error of this package."""
    if isinstance(error, AkidbMlxError):
        return error
    failure = ModelLoadError(f"loading the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
