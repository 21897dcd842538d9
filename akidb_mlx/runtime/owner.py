"""The threads that own MLX's objects.

MLX binds what is not yet evaluated to the thread that made it, so each engine lives on one thread. MLX also keeps
something alive for every thread that ever used it; a thread whose engine has ended waits here for the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

_Inbox = SimpleQueue[Callable[[], None]]

_lock = threading.Lock()
_parked: list[_Inbox] = []


def run_on_owner_thread(work: Callable[[], None]) -> None:
    """Start `work` on a thread that does nothing else until it returns. What it raises ends the thread."""
    with _lock:
        inbox = _parked.pop() if _parked else None
    if inbox is None:
        inbox = SimpleQueue()
        threading.Thread(target=_live, args=(inbox,), name="akidb-mlx-owner", daemon=True).start()
    inbox.put(work)


def _live(inbox: _Inbox) -> None:
    while True:
        inbox.get()()
        with _lock:
            _parked.append(inbox)
