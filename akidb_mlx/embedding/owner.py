"""The threads that own MLX's objects, and whose turn it is on the device.

MLX binds what is not yet evaluated to the thread that made it, so each engine lives on one thread. MLX also keeps
something alive for every thread that ever used it; a thread whose engine has ended waits here for the next one.
"""

from __future__ import annotations

import threading
from collections import deque
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


class TurnLock:
    """A lock that is taken in the order in which it was asked for, so that nobody who asks often keeps it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C: somebody else's turn comes now, or has come already
            with self._lock:
                waits = turn in self._waiting
                if waits:
                    self._waiting.remove(turn)
            if not waits:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._waiting)


# Held for each step on the device, by whichever model of this process takes it.
device_turn = TurnLock()
