"""A clock for tests of deadlines."""

from __future__ import annotations

import threading

import pytest


class FakeClock:
    """Stands for `time.monotonic` in a module, by default that of deadlines; time passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module_time: str = "akidb_mlx.deadline.time") -> None:
        self._now = 0.0
        self._lock = threading.Lock()
        monkeypatch.setattr(module_time, self)

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
