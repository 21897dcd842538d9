"""The lock on the device, which all models of a process share."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
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
        """Return whether a thread waits for it."""
        return bool(self._waiting)


# Held for each step on the device, by whichever model of this process takes it.
device_lock = FairLock()
