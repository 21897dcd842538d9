"""The caller's side of benchmarks/contestants/worker.py."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments

_LONGEST_ANSWER = 1800  # seconds after which a worker counts as hung


class WorkerError(Exception):
    """A contestant's process raised, ended or hung."""


class Worker:
    """One contestant's process, ended by leaving the context."""

    def __init__(self, contestant: str, python: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._vectors = Path(self._folder.name) / "vectors.npy"
        self._log = Path(self._folder.name) / "stderr"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.contestants.worker", contestant],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=environments.ROOT,
                env=environments.variables(),
            )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            WorkerError: the contestant failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = Timer(_LONGEST_ANSWER, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watchdog.cancel()
        if not line:
            self._process.wait()
            said = self._log.read_text(errors="replace").split("\n")
            raise WorkerError(next((text for text in reversed(said) if text), "ended without a word"))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def ask_vectors(self, do: str, **request: Any) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """The answer to a request that also makes vectors."""
        answer = self.ask(do, vectors=str(self._vectors), **request)
        return answer, np.load(self._vectors)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it holds nothing that is worth an orderly end
        self._process.communicate()
        self._folder.cleanup()
