"""The threads that own MLX's objects.

MLX binds what is not yet evaluated to the thread that made it, so each model lives on one thread. MLX also keeps
something alive for every thread that ever used it; a thread whose model has ended waits here for the next one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from akidb_mlx.errors import ReentrantCallError

_Inbox = SimpleQueue[Callable[[], None]]

# Inboxes of the threads that wait for work; its methods are atomic.
_parked: deque[_Inbox] = deque()
_this_thread = threading.local()


def run_on_owner_thread(work: Callable[[], None]) -> None:
    """Start `work` on a thread that does nothing else until it returns. An exception that it raises ends the thread."""
    try:
        inbox = _parked.pop()
    except IndexError:
        inbox = SimpleQueue()
        threading.Thread(target=_live, args=(inbox,), name="akidb-mlx-owner", daemon=True).start()
    inbox.put(work)


def on_owner_thread() -> bool:
    """Return whether this is an owner thread, as it is for done-callbacks of futures."""
    return getattr(_this_thread, "is_owner", False)


def check_may_wait() -> None:
    """Refuse to wait for a model on an owner thread.

    Raises:
        ReentrantCallError: this is an owner thread, so that the model would wait for itself.
    """
    if on_owner_thread():
        raise ReentrantCallError(
            "a done-callback made a call that waits, on the thread that owns the model: the call would wait for "
            "itself; use submit() there, or hand the work to another thread"
        )


def _live(inbox: _Inbox) -> None:
    _this_thread.is_owner = True
    while True:
        inbox.get()()
        _parked.append(inbox)
