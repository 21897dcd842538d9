"""The owner thread: it alone loads the model and runs every forward pass.

MLX binds what is not yet evaluated to the thread that made it, so one thread does all of it. Any thread may submit
token sequences; they are served one call after another, and each call's future is resolved whatever happens: with its
result, with an error of its own, or with `ServiceClosedError` when the engine closes, fails or the process ends.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.embedding.batching import plan_batches
from akidb_mlx.errors import AkidbMlxError, InferenceError, ModelLoadError, ServiceClosedError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
EngineStatus = Literal["loading", "ready", "closed", "failed"]

# How long `close()` waits for the batch that is running. A process that exits does not wait longer either.
_CLOSE_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class ModelFacts:
    """What may be known of a loaded model on any thread.

    Attributes:
        dimension: size of the vectors it computes.
        max_tokens: most tokens of one sequence.
        token_budget: most tokens that one batch should have, padding included.
        lanes: how many batches it runs side by side.
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
    """

    dimension: int
    max_tokens: int
    token_budget: int
    lanes: int
    device: str
    precision: str


class Model(Protocol):
    """What the engine runs; see `EmbeddingModel`."""

    facts: ModelFacts

    def encode(self, batches: Sequence[tuple[Sequence[Sequence[int]], int]]) -> list[NDArray[np.float32]]:
        """Up to `facts.lanes` batches, each of token ids and what they are padded to, → (batch, dimension) each."""
        ...


@dataclass(frozen=True)
class _Call:
    sequences: Sequence[Sequence[int]]
    finish: Callable[[NDArray[np.float32]], Any]
    future: Future[Any]


class Engine:
    """One model on one thread.

    Attributes:
        status: "loading", "ready", "closed" or "failed"; may be read from any thread.
    """

    def __init__(self, load: Callable[[], Model]) -> None:
        """Start the owner thread, which loads the model.

        Args:
            load: makes the model; called on the owner thread.

        Raises:
            ServiceClosedError: this process was forked from one that had an engine.
        """
        _check_process()
        self.status: EngineStatus = "loading"
        self._load = load
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._current: _Call | None = None
        self._closing = False
        # Reentrant: the garbage collector may close an engine on a thread that is inside one of these methods.
        self._lock = threading.RLock()
        self._loaded: Future[ModelFacts] = Future()
        self._thread = threading.Thread(target=self._own, name="akidb-mlx-owner", daemon=True)
        _register(self)
        self._thread.start()

    def wait_until_loaded(self) -> ModelFacts:
        """Block until the model is loaded.

        Raises:
            AkidbMlxError: what loading raised.
        """
        return self._loaded.result()

    def submit(
        self, sequences: Sequence[Sequence[int]], finish: Callable[[NDArray[np.float32]], Result]
    ) -> Future[Result]:
        """Queue a call.

        Args:
            sequences: token ids, none empty.
            finish: makes the result of the pooled vectors (len(sequences), native dimension), on the owner thread.

        Returns:
            A future; cancelling it before its turn comes drops the call.

        Raises:
            ServiceClosedError: the engine takes no more calls.
        """
        call = _Call(sequences, finish, Future())
        with self._lock:
            self.check_open()
            self._calls.put(call)
        return call.future

    def check_open(self) -> None:
        """Fail at once where a call would.

        Raises:
            ServiceClosedError: the engine takes no more calls, or this is a forked child.
        """
        _check_process()
        if self._closing or self.status in ("closed", "failed"):
            raise self._closed_error()

    def close(self) -> None:
        """Finish the batch that is running, fail every call that is not done, and free the model. Idempotent."""
        if _forked:
            return  # the owner thread is the parent's
        with self._lock:
            self._closing = True
        self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                logger.warning("the forward pass that is running did not end within %.0f s", _CLOSE_TIMEOUT_S)

    @property
    def alive(self) -> bool:
        """Whether the owner thread runs."""
        return not _forked and self._thread.is_alive()

    def _own(self) -> None:
        """What the owner thread does from its start to its end."""
        outcome: EngineStatus = "failed"
        try:
            model = self._load()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the model
            self._end(outcome)
            self._loaded.set_exception(_load_error(error))
            return
        self.status = "ready"
        self._loaded.set_result(model.facts)
        try:
            while not self._closing and (call := self._calls.get()) is not None:
                self._current = call
                self._serve(call, model)
                self._current = None
            outcome = "closed"
        finally:
            self._end(outcome)

    def _serve(self, call: _Call, model: Model) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            result = call.finish(self._encode(call.sequences, model))
        except AkidbMlxError as error:
            call.future.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - a native panic is no Exception, and the next call must succeed
            failure = InferenceError(f"the forward pass failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            call.future.set_exception(failure)
        else:
            call.future.set_result(result)

    def _encode(self, sequences: Sequence[Sequence[int]], model: Model) -> NDArray[np.float32]:
        facts = model.facts
        vectors = np.empty((len(sequences), facts.dimension), dtype=np.float32)
        lengths = [len(sequence) for sequence in sequences]
        # A short call is spread over the lanes.
        budget = min(facts.token_budget, -(-sum(lengths) // facts.lanes))
        batches = plan_batches(lengths, budget, facts.max_tokens)
        for start in range(0, len(batches), facts.lanes):
            if self._closing:
                raise self._closed_error()
            together = batches[start : start + facts.lanes]
            results = model.encode([([sequences[i] for i in batch.indices], batch.length) for batch in together])
            for batch, rows in zip(together, results, strict=True):
                vectors[batch.indices] = rows
        return vectors

    def _end(self, status: EngineStatus) -> None:
        """Take no more calls and fail those that are not done."""
        with self._lock:
            self.status = status
            calls = [self._current]
            while not self._calls.empty():
                calls.append(self._calls.get())
        for call in calls:
            if call is None or call.future.done():
                continue
            if call.future.running() or call.future.set_running_or_notify_cancel():
                call.future.set_exception(self._closed_error())

    def _closed_error(self) -> ServiceClosedError:
        if self.status == "failed":
            return ServiceClosedError("the service's owner thread died; create a new EmbeddingService")
        return ServiceClosedError("the service is closed; create a new EmbeddingService")


def _load_error(error: BaseException) -> AkidbMlxError:
    if isinstance(error, AkidbMlxError):
        return error
    failure = ModelLoadError(f"loading the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


# Engines to close when this process ends, and whether it is a fork of a process that had any.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_registered = False
_forked = False


def _register(engine: Engine) -> None:
    global _registered
    _engines.add(engine)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_mark_forked)
        # `atexit` runs after the threads that wait for a call have been joined, which is too late to wake them. This is
        # the hook that concurrent.futures closes its own executors with.
        threading._register_atexit(_close_all)  # type: ignore[attr-defined]


def _close_all() -> None:
    for engine in list(_engines):
        engine.close()


def _mark_forked() -> None:
    global _forked
    _forked = True


def _check_process() -> None:
    if _forked:
        raise ServiceClosedError(
            "MLX does not survive a fork: this process was forked after an EmbeddingService was created in its parent; "
            "start workers with the 'spawn' method and create the service in each"
        )
