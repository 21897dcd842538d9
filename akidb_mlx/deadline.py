"""One deadline for everything that a call does."""

from __future__ import annotations

import time

from akidb_mlx.errors import DeadlineExceededError


class Deadline:
    """The moment at which a call fails.

    Attributes:
        began: when the call was made, by `time.monotonic`.
    """

    def __init__(self, timeout: float | None) -> None:
        """Start the clock of a call that may take `timeout` seconds; None for ever."""
        self.began = time.monotonic()
        self._at = None if timeout is None else self.began + timeout

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; None where the call may take for ever."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def elapsed(self) -> float:
        """Return the seconds since the call was made."""
        return time.monotonic() - self.began

    @property
    def passed(self) -> bool:
        """Return whether no time is left."""
        return self._at is not None and time.monotonic() >= self._at

    def error(self) -> DeadlineExceededError:
        """Return the error of a call that is dropped now."""
        return DeadlineExceededError.after(self.elapsed())

    def check(self) -> None:
        """Fail if no time is left.

        Raises:
            DeadlineExceededError: the moment has passed.
        """
        if self.passed:
            raise self.error()


# The deadline of a call that may take for ever.
NEVER = Deadline(None)
