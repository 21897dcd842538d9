"""The ends of a process: exit, where every model is stopped in time, and fork, which MLX does not survive."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from typing import Protocol

from akidb_mlx.errors import ServiceClosedError
from akidb_mlx.runtime.owner import on_owner_thread

logger = logging.getLogger(__name__)

# Seconds that closing one model waits for the forward pass that is running.
CLOSE_TIMEOUT_S = 4.0

# Seconds that all models together may take to end when the process exits. A forward pass that hangs is then left.
EXIT_TIMEOUT_S = 4.0


class Stoppable(Protocol):
    """A model's owner, which is stopped when the process ends."""

    def stop(self) -> None:
        """Ask it to end; waits for nothing."""
        ...

    def join(self, timeout: float | None) -> bool:
        """Wait for its end, `timeout` seconds at most, and return whether it has ended."""
        ...


_running: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_exit_registered = False
_fork_registered = False
_forked = False


class ModelOwner(ABC):
    """A model on an owner thread, which is stopped and waited for when it is closed."""

    _close_by: float | None = None

    @abstractmethod
    def stop(self) -> None:
        """Begin to end: finish what is running, and fail every call that waits. Waits for nothing and takes no lock."""

    @abstractmethod
    def join(self, timeout: float | None) -> bool:
        """Wait until the model is freed and every call resolved, `timeout` seconds at most; return whether it is."""

    def close(self) -> None:
        """Stop, and wait until the model is freed. Idempotent.

        A forward pass that hangs is waited for only once, however often this is called.
        """
        if is_forked():
            return  # the owner thread is the parent's
        self.stop()
        if on_owner_thread():
            return  # a done-callback; the model would wait for itself
        if self._close_by is None:
            self._close_by = time.monotonic() + CLOSE_TIMEOUT_S
        left = self._close_by - time.monotonic()
        if not self.join(max(0.0, left)) and left > 0:
            logger.warning("the forward pass that is running did not end within %.0f s", CLOSE_TIMEOUT_S)


def stop_at_exit(owner: Stoppable, *, survives_fork: bool = False) -> None:
    """Stop `owner` when this process ends, and mark the children that fork from here on.

    Args:
        owner: whatever is stopped.
        survives_fork: whether it holds nothing of MLX, so that children may load models of their own.
    """
    global _exit_registered, _fork_registered
    _running.add(owner)
    if not _exit_registered:
        _exit_registered = True
        # `atexit` runs after the threads that wait for a call have been joined, which is too late to wake them. This is
        # the hook that concurrent.futures closes its own executors with.
        threading._register_atexit(close_all)  # type: ignore[attr-defined]
    if not survives_fork and not _fork_registered:
        _fork_registered = True
        os.register_at_fork(after_in_child=_mark_forked)


def close_all() -> None:
    """Stop every model, side by side, and wait `EXIT_TIMEOUT_S` at most for all of them.

    A host that never finalises Python calls this when it ends, before MLX's own destructors.
    """
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    owners = list(_running)
    for owner in owners:
        owner.stop()
    for owner in owners:
        owner.join(max(0.0, deadline - time.monotonic()))


def is_forked() -> bool:
    """Return whether this process was forked from one that had a model."""
    return _forked


def check_not_forked() -> None:
    """Fail at once in a forked child.

    Raises:
        ServiceClosedError: this process was forked from one that had a model.
    """
    if _forked:
        raise ServiceClosedError(
            "MLX does not survive a fork: this process was forked after a model was loaded in its parent; "
            "start workers with the 'spawn' method and create the service in each"
        )


def _mark_forked() -> None:
    global _forked
    _forked = True
