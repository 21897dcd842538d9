"""The engine: calls of any thread in, futures out.

Each call's future is resolved whatever happens: with its result as soon as its own texts are done, with an error of its
own, or with `ServiceClosedError` when the engine closes, fails or the process ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Literal

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import Model, ModelFacts
from akidb_mlx.engine.life import EngineCall, EngineLife, EngineLimits
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.errors import ReentrantCallError
from akidb_mlx.reports import ModelStatus, QueueDepth
from akidb_mlx.runtime import process
from akidb_mlx.runtime.locks import ExclusiveLock
from akidb_mlx.runtime.owner import on_owner_thread

logger = logging.getLogger(__name__)

# How often an owner thread that died is replaced.
_RESTARTS = 1


class Engine(process.ModelOwner):
    """One model and its queue.

    Attributes:
        metrics: counters and timings.
    """

    def __init__(self, load: Callable[[], Model], limits: EngineLimits, facade: str = "EmbeddingService") -> None:
        """Start loading the model on an owner thread.

        Args:
            load: makes the model; called on the owner thread, again if that has to be replaced.
            limits: bounds of the queue.
            facade: the class that callers use, for messages.

        Raises:
            ServiceClosedError: this process was forked from one that had an engine.
        """
        process.check_not_forked()
        self.metrics = Metrics()
        self._load = load
        self._limits = limits
        self._facade = facade
        self._restarts = 0
        self._restarting = ExclusiveLock()
        self._stopped = False
        self._life = EngineLife(load, limits, self.metrics, facade)
        process.stop_at_exit(self)
        self._life.begin()

    @property
    def status(self) -> ModelStatus:
        """Return "loading", "ready", "closed" or "failed"; may be read on any thread."""
        return self._life.status

    @property
    def memory(self) -> dict[str, int]:
        """Return the bytes that the device's allocator held after the latest step."""
        loop = self._life.loop
        return dict(loop.memory) if loop else {}

    def wait_until_loaded(self) -> ModelFacts:
        """Wait until the model is loaded.

        Raises:
            AkidbMlxError: the error of loading.
        """
        return self._life.wait_until_loaded()

    def open_call(
        self,
        combine: Callable[[list[Any]], Any],
        expected_tokens: int,
        deadline: Deadline,
        isolated: bool = False,
    ) -> EngineCall:
        """Admit a call, which is then fed with its `add` and ended with its `end`.

        Args:
            combine: makes the call's result of its finished parts, in order.
            expected_tokens: an estimate, until the parts are added.
            deadline: when what has not run is dropped.
            isolated: whether it shares no batch with another call; it runs once all of it was added.

        Raises:
            ServiceOverloadedError: the queue is full.
            ServiceClosedError: the engine takes no more calls.
            ReentrantCallError: this thread is inside the engine already.
        """
        return self._usable_life().open_call(combine, expected_tokens, deadline, isolated)

    def check_open(self) -> None:
        """Fail at once where a call would; replace, once, an owner thread that died.

        Raises:
            ServiceClosedError: the engine takes no more calls, or this is a forked child.
        """
        self._usable_life()

    def stop(self, drain: bool = False) -> None:
        """Begin to end; see `ModelOwner`.

        Args:
            drain: whether every call that was admitted is finished first; else only the batches that are running.
        """
        self._stopped = True
        self._life.queue.close(drain)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end, and return whether it has come; see `ModelOwner`."""
        return self._life.ended.wait(timeout)

    def close(self, drain: bool = False) -> None:
        """End, and wait for it; see `ModelOwner`.

        Args:
            drain: finish every call that was admitted first, however long that takes.

        Raises:
            ReentrantCallError: `drain` would wait for a call that this thread is inside of; nothing was stopped.
        """
        if not drain:
            super().close()
        elif not process.is_forked():
            if get_ident() in self._life.feeders:
                raise ReentrantCallError(
                    "a signal handler or a finalizer asked to drain the service on a thread that was inside submit(): "
                    "draining would wait for that call; use close(), or drain from ordinary code"
                )
            self.stop(drain=True)
            if not on_owner_thread():
                self.join(None)

    def health(self) -> tuple[Literal["ok", "degraded", "failed"], str]:
        """Report the state and its reason; takes no lock, so that it also answers while a forward pass hangs."""
        life = self._life
        if process.is_forked():
            return "failed", "this process was forked from the one that has the model"
        if life.status == "failed" and self._replaceable(life):
            return "failed", "the owner thread died; the next call restarts it"
        if life.status in ("closed", "failed"):
            return "failed", life.status
        if self._stopped:
            return "failed", "closing"
        began = life.loop.computing_since if life.loop else None
        running = 0.0 if began is None else time.monotonic() - began
        if running > self._limits.stuck_after_s:
            return "failed", f"the forward pass has been running for {running:.0f} s"
        if life.status == "loading":
            return "degraded", "loading"
        if life.queue.load >= 1:
            return "degraded", "the queue is full"
        if self._restarts:
            return "degraded", "the owner thread died and was replaced"
        return "ok", "ready"

    def queue_depth(self) -> QueueDepth:
        """Return how many calls are not done, and how many tokens wait."""
        queue = self._life.queue
        return {"requests": queue.requests, "tokens": queue.tokens}

    def _usable_life(self) -> EngineLife:
        """Return the life that takes calls; begin another, once, where the owner thread died."""
        process.check_not_forked()
        life = self._life
        # Not from a done-callback, which may run at the very end of the life that died.
        if life.status == "failed" and self._replaceable(life) and not on_owner_thread():
            life = self._replace(life)
        if life.queue.closed:
            raise life.closed_error()
        return life

    def _replaceable(self, life: EngineLife) -> bool:
        return life.was_ready and self._restarts < _RESTARTS and not self._stopped

    def _replace(self, dead: EngineLife) -> EngineLife:
        with self._restarting:
            if self._life is dead and self._replaceable(dead):
                self._restarts += 1
                logger.warning("the owner thread died; loading the model again on another")
                life = EngineLife(self._load, self._limits, self.metrics, self._facade)
                self._life = life
                if self._stopped:  # meanwhile, and the queue that was closed was the old one
                    life.queue.close()
                life.begin()
            return self._life
