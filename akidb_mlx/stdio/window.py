"""The bound on the requests that were read and are not answered yet."""

from __future__ import annotations

import threading
from collections.abc import Callable

from akidb_mlx.stdio.streams import LOOK_S

MAX_REQUESTS = 1024
MAX_BYTES = 64 << 20


class Window:
    """Counts the requests that are being worked on, and the bytes that they take."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests = 0
        self._bytes = 0

    def enter(self, size: int, ended: Callable[[], bool]) -> bool:
        """Wait until there is room for one more request; one that is larger than all room enters alone.

        Args:
            size: bytes that the request takes until it is answered.
            ended: asked again and again meanwhile.

        Returns:
            Whether it entered; False once `ended` returns True.
        """
        with self._changed:
            while not self._has_room(size):
                if ended():
                    return False
                self._changed.wait(LOOK_S)
            self._requests += 1
            self._bytes += size
        return True

    def leave(self, size: int) -> None:
        """Make room: a request of so many bytes was answered."""
        with self._changed:
            self._requests -= 1
            self._bytes -= size
            self._changed.notify()

    def _has_room(self, size: int) -> bool:
        return not self._requests or (self._requests < MAX_REQUESTS and self._bytes + size <= MAX_BYTES)
