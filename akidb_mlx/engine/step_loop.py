"""The owner thread's work while a model is loaded: take batches from the queue, compute them, hand out the vectors."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from akidb_mlx.engine.backend import Model, Step
from akidb_mlx.engine.batching import Batch
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.engine.request_queue import RequestQueue
from akidb_mlx.engine.requests import QueuedSequence, RequestPart
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.vectors import Rows

logger = logging.getLogger(__name__)

# Seconds that nothing must have waited before memory that is kept for reuse is given back.
_IDLE_S = 10.0


@dataclass
class _RunningStep:
    """Batches that were handed to the device.

    Attributes:
        batches: the batches, side by side.
        outcome: the step that computes them, their vectors, or the error.
        waited: seconds that they waited for the device.
        computed: seconds that the device was held for them.
    """

    batches: list[Batch[QueuedSequence]]
    outcome: Step | list[Rows] | BaseException | None = None
    waited: float = 0.0
    computed: float = 0.0

    @property
    def failed(self) -> bool:
        """Return whether it ended in an error."""
        return isinstance(self.outcome, BaseException)


class StepLoop:
    """Runs what waits in a queue on a model, until the queue is finished. Belongs to the owner thread.

    Attributes:
        memory: bytes that the device's allocator held after the latest step; may be read on any thread.
        computing_since: when the forward pass that runs was given the device, by `time.monotonic`; None while none
            runs, also while one waits for its turn on the device. May be read on any thread.
    """

    def __init__(self, model: Model, queue: RequestQueue, metrics: Metrics, coalesce_delay_s: float) -> None:
        """Prepare to run; see `Settings` for the delay."""
        self.memory = model.memory()
        self.computing_since: float | None = None
        self._model = model
        self._facts = model.facts
        self._queue = queue
        self._metrics = metrics
        self._coalesce_delay_s = coalesce_delay_s

    def run(self) -> None:
        """Run until the queue is finished."""
        queue, facts = self._queue, self._facts
        idle = False
        running: _RunningStep | None = None
        while running is not None or not queue.finished:
            if running is None and not queue.wait(None if idle else _IDLE_S, self._coalesce_delay_s) and not idle:
                self._model.release_memory()
                self.memory = self._model.memory()
                idle = True
            batches = [] if queue.finished else queue.take(facts.lanes, facts.token_budget, facts.packed)
            started = self._start(batches) if batches else None
            if not facts.pipelined and started is not None:
                running, started = started, None
            if running is not None:
                in_flight = [running] if started is None else [running, started]
                if any(step.failed for step in in_flight) or not self._finish(running):
                    # The device may have reported the failure of one to the other, so neither is trusted.
                    self._rerun(in_flight)
                    started = None
                self.memory = self._model.memory()
                idle = False
            running = started

    def _start(self, batches: list[Batch[QueuedSequence]]) -> _RunningStep:
        """Hand batches to the device; an error is dealt with when they are finished."""
        self._count(batches)
        step = _RunningStep(batches)
        try:
            rows = [batch.token_rows() for batch in batches]
            with self._device(step):
                started = self._model.start(rows)
                # Where steps do not overlap, one turn is enough: others who want the device may have long ones.
                step.outcome = started if self._facts.pipelined else started.result()
        except BaseException as error:  # noqa: BLE001 - a native panic is no Exception, and the next call must succeed
            step.outcome = error
        return step

    def _finish(self, step: _RunningStep) -> bool:
        """Wait for batches and hand out their vectors; return False where the device failed."""
        try:
            results = self._result(step)
        except BaseException as error:  # noqa: BLE001 - likewise
            step.outcome = error
            return False
        computed = time.monotonic()
        self._queue.measured(sum(batch.tokens for batch in step.batches), step.computed)
        self._metrics.observe("device_wait", step.waited)
        self._metrics.observe("compute", step.computed)
        for batch, vectors in zip(step.batches, results, strict=True):
            self._deliver(batch, vectors)
        self._metrics.observe("finish", time.monotonic() - computed)
        return True

    def _result(self, step: _RunningStep) -> list[Rows]:
        outcome = step.outcome
        if isinstance(outcome, list):
            return outcome
        assert outcome is not None
        assert not isinstance(outcome, BaseException)
        with self._device(step):
            return outcome.result()

    @contextmanager
    def _device(self, step: _RunningStep) -> Iterator[None]:
        """Hold the device for a step; the clock that tells a hanging pass starts with the turn, not before."""
        asked = time.monotonic()
        with device_lock if self._facts.takes_turns else nullcontext():
            began = self.computing_since = time.monotonic()
            step.waited += began - asked
            try:
                yield
            finally:
                self.computing_since = None
                step.computed += time.monotonic() - began

    def _rerun(self, steps: list[_RunningStep]) -> None:
        """Run all batches of steps again, of which one failed."""
        errors = [step.outcome for step in steps if step.failed]
        logger.warning("a forward pass failed and is run again: %s", "; ".join(map(str, errors)))
        self._recover()
        for step in steps:
            for batch in step.batches:
                self._isolate(batch)

    def _isolate(self, batch: Batch[QueuedSequence]) -> None:
        """Run a batch alone; where it fails, its halves, until the texts at fault are found."""
        outcome = self._run_alone(batch)
        if isinstance(outcome, BaseException) and batch.size == 1:
            outcome = self._run_alone(batch)  # once more: the device may have failed, and not the text
        if not isinstance(outcome, BaseException):
            self._deliver(batch, outcome)
        elif batch.size > 1:
            for half in batch.halves():
                self._isolate(half)
        else:
            logger.warning("a text failed alone, twice: %s: %s", type(outcome).__name__, outcome)
            for _, sequence in batch.rows():
                sequence.part.request.fail(outcome, sequence)

    def _run_alone(self, batch: Batch[QueuedSequence]) -> Rows | BaseException:
        """Return the vectors of a batch, or the error, after which the device has recovered."""
        try:
            with self._device(_RunningStep([batch])):
                (vectors,) = self._model.start([batch.token_rows()]).result()
        except BaseException as error:  # noqa: BLE001 - likewise
            self._recover()
            return error
        return vectors

    def _recover(self) -> None:
        with self._device(_RunningStep([])):
            self._model.recover()

    def _deliver(self, batch: Batch[QueuedSequence], vectors: Rows) -> None:
        """Hand each vector to the calls that wait for it, and finish the parts that are complete."""
        complete: list[RequestPart] = []
        for row, sequence in batch.rows():
            part = sequence.part
            if part.request.future.over:
                continue
            part.fill(sequence, vectors[row])
            if not part.missing:
                complete.append(part)
        for part in complete:
            try:
                part.request.finish_part(part)
            except BaseException as error:  # noqa: BLE001 - the call's own fault, and the next must succeed
                part.request.fail(error)

    def _count(self, batches: list[Batch[QueuedSequence]]) -> None:
        sequences = [sequence for batch in batches for _, sequence in batch.rows()]
        computed = sum(batch.vectors for batch in batches)
        self._metrics.count(
            {
                "batches": len(batches),
                "sequences": computed,
                "shared_sequences": sum(len(sequence.rows) for sequence in sequences) - computed,
                "tokens": sum(batch.tokens for batch in batches),
                "padded_tokens": sum(batch.padded_tokens for batch in batches),
                "capacity": self._facts.lanes * self._facts.token_budget,
            }
        )
