"""Levels of activity, which decide what the weaver does now."""

from __future__ import annotations

import time
from typing import Literal, get_args

from embedded_db.errors import InvalidRecordError, excerpt
from embedded_db.jobs import ENRICHMENT, JobKind

ActivityLevel = Literal["HighActivity", "LowActivity", "SleepMode"]
LEVELS: tuple[ActivityLevel, ...] = get_args(ActivityLevel)
# Seconds without a call of the application and without a new message.
LOW_AFTER_S, SLEEP_AFTER_S = 5 * 60.0, 30 * 60.0


class Activity:
    """The level of this process: by the time since the last activity, or as the caller has set it."""

    def __init__(self) -> None:
        """Begin as active."""
        self._set: ActivityLevel | None = None
        self.touch()

    def touch(self) -> None:
        """Note that something happened."""
        self._last = time.monotonic()

    def set(self, level: str | None) -> None:
        """Keep a level from now on; None goes back to that by time.

        Raises:
            InvalidRecordError: there is no such level.
        """
        if level is not None and level not in LEVELS:
            raise InvalidRecordError(f"level must be one of {', '.join(LEVELS)} or None, found {excerpt(level)}")
        self._set = level
        self.touch()

    def level(self) -> ActivityLevel:
        """Return the level now."""
        if self._set is not None:
            return self._set
        idle = time.monotonic() - self._last
        if idle < LOW_AFTER_S:
            return "HighActivity"
        return "LowActivity" if idle < SLEEP_AFTER_S else "SleepMode"

    def kinds(self) -> tuple[JobKind, ...]:
        """Return the kinds of jobs that are done at this level."""
        level = self.level()
        if level == "HighActivity":
            return ENRICHMENT
        return (*ENRICHMENT, "links") if level == "LowActivity" else (*ENRICHMENT, "links", "summary")
