"""What an engine must know of its process: how it ends, and whether it is a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from akidb_mlx.errors import ServiceClosedError


class Closable(Protocol):
    """What is closed when the process ends."""

    def close(self) -> None:
        """End, soon."""
        ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_registered = False
_forked = False


def close_at_exit(engine: Closable) -> None:
    """Close an engine when this process ends, and mark the children that fork from here on."""
    global _registered
    _open.add(engine)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_mark_forked)
        # `atexit` runs after the threads that wait for a call have been joined, which is too late to wake them. This is
        # the hook that concurrent.futures closes its own executors with.
        threading._register_atexit(close_all)  # type: ignore[attr-defined]


def is_forked() -> bool:
    """Whether this process was forked from one that had an engine."""
    return _forked


def check_not_forked() -> None:
    """Fail at once in a forked child.

    Raises:
        ServiceClosedError: this process was forked from one that had an engine.
    """
    if _forked:
        raise ServiceClosedError(
            "MLX does not survive a fork: this process was forked after a model was loaded in its parent; "
            "start workers with the 'spawn' method and create the service in each"
        )


def close_all() -> None:
    """Close every engine. A host that never finalises Python calls this when it ends, before MLX's own destructors."""
    for engine in list(_open):
        engine.close()


def _mark_forked() -> None:
    global _forked
    _forked = True
