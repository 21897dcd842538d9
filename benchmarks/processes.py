"""Start a worker process for a contestant, send it requests and read its answers."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments

_ANSWER_TIMEOUT_S = 1800  # a worker that takes longer counts as hung
_WORKER = "benchmarks.contestants.worker"

# What a worker answers, and the vectors that it made.
Answer = tuple[dict[str, Any], NDArray[np.float32]]


class WorkerError(Exception):
    """A contestant's process raised, ended or hung."""


class Worker:
    """The process of one contestant, which ends when the context is left."""

    def __init__(
        self,
        contestant: str,
        python: Path,
        module: str = _WORKER,
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

    def ask_vectors(self, method: str, **request: Any) -> Answer:
        """Send a request that makes vectors; return the answer and the vectors."""
        answer = self.ask(method, vectors=str(self._vectors), **request)
        return answer, np.load(self._vectors)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it holds nothing that needs an orderly end
        self._process.communicate()
        self._folder.cleanup()


def start_workers(
    stack: ExitStack, contestants: Iterable[str], module: str = _WORKER, **model: Any
) -> dict[str, Worker]:
    """Start a process for each contestant, and have it load a model.

    Args:
        stack: ends the processes.
        contestants: the names; one that is not installed ends the program.
        module: what the processes run.
        model: the fields of the request to load.
    """
    workers: dict[str, Worker] = {}
    for name in contestants:
        python = environments.find_python(name)
        if python is None:
            raise SystemExit(f"{name} is not installed: {environments.INSTALL_COMMAND}")
        workers[name] = stack.enter_context(Worker(name, python, module))
        workers[name].ask("load", **model)
    return workers


def take_turns(
    workers: dict[str, Worker],
    rounds: int,
    ask: Callable[[Worker], Answer],
    compare: Callable[[dict[str, Answer]], float],
) -> tuple[dict[str, float], float]:
    """Have workers do the same work in turn: one untimed round, then the timed ones.

    Args:
        workers: by name.
        rounds: number of timed rounds.
        ask: asks a worker to do it.
        compare: returns the largest difference between the answers of a round, and ends the program if it is too large.

    Returns:
        The median seconds of each worker, and the largest difference of all rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    largest = 0.0
    for timed in [False, *[True] * rounds]:
        answers = {name: ask(worker) for name, worker in workers.items()}
        largest = max(largest, compare(answers))
        for name, (answer, _) in answers.items() if timed else ():
            seconds[name].append(answer["seconds"])
    return {name: statistics.median(found) for name, found in seconds.items()}, largest
