"""Start a worker process for a contestant, send it requests and read its answers."""

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

_ANSWER_TIMEOUT_S = 1800  # a worker that takes longer counts as hung


class WorkerError(Exception):
    """A contestant's process raised, ended or hung."""


class Worker:
    """The process of one contestant, which ends when the context is left."""

    def __init__(
        self,
        contestant: str,
        python: Path,
        module: str = "benchmarks.contestants.worker",
        timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory()
        self._vectors = Path(self._folder.name) / "vectors.npy"
        self._log = Path(self._folder.name) / "stderr"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", module, contestant],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=environments.ROOT,
                env=environments.process_variables(),
            )

    def ask(self, method: str, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            WorkerError: the contestant failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = Timer(self._timeout_s, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"method": method, **request}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watchdog.cancel()
        if not line:
            self._process.wait()
            lines = self._log.read_text(errors="replace").split("\n")
            raise WorkerError(next((text for text in reversed(lines) if text), "ended without an error message"))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def ask_vectors(self, method: str, **request: Any) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """Send a request that makes vectors; return the answer and the vectors."""
        answer = self.ask(method, vectors=str(self._vectors), **request)
        return answer, np.load(self._vectors)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it holds nothing that needs an orderly end
        self._process.communicate()
        self._folder.cleanup()
