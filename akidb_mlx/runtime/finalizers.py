"""Clean-up of collected objects, on a thread of its own.

The garbage collector runs on any thread, which may hold a lock or own the model that the clean-up would wait for.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue

logger = logging.getLogger(__name__)

# `put` may be called from the garbage collector: it takes no lock of Python's.
_pending: SimpleQueue[Callable[[], object]] = SimpleQueue()


def clean_up_after(collected: object, clean_up: Callable[[], object]) -> None:
    """Run `clean_up`, which must be idempotent and must not refer to `collected`, once `collected` is gone.

    Nothing runs when the process exits; see `akidb_mlx.runtime.process` for that.
    """
    _start()
    weakref.finalize(collected, _pending.put, clean_up).atexit = False


@cache
def _start() -> None:
    threading.Thread(target=_run, name="akidb-mlx-finalizer", daemon=True).start()


def _run() -> None:
    while True:
        clean_up = _pending.get()
        try:
            clean_up()
        except Exception:
            logger.exception("a collected service could not be closed")
        del clean_up
