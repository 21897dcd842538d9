"""Run one contestant: read a request as a line of JSON from standard input, and answer with a line of JSON.

python -m benchmarks.contestants.worker CONTESTANT

Times are measured here, around the contestant's own calls. Vectors are written to the .npy file that a request names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier, Lock
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.contestants import MODEL2VEC, MODULES, Encode, ModelFiles, Prompt

Answer = dict[str, Any]


class Worker:
    """One method for each kind of request; `load` comes first."""

    def __init__(self, contestant: ModuleType) -> None:
        self._contestant = contestant
        self._encode: Encode

    def load(self, model: dict[str, Any]) -> Answer:
        encode: Encode = self._contestant.load(ModelFiles(**model))
        self._loaded = encode
        # A user who shares the model between threads must add this lock.
        lock = nullcontext() if self._contestant.THREAD_SAFE else Lock()

        def guarded(texts: list[str], prompt: Prompt | None) -> np.ndarray:
            with lock:
                return encode(texts, prompt)

        self._encode = guarded
        return {}

    def encode(self, texts: list[str], prompt: dict[str, str] | None, vectors: str) -> Answer:
        given = Prompt(**prompt) if prompt else None
        start, cpu_start = time.perf_counter(), time.process_time()
        result = self._encode(texts, given)
        answer = self._answer(start, cpu_start)
        _save(vectors, result)
        return answer

    def callers(self, texts: list[str], callers: int, vectors: str) -> Answer:
        """Start `callers` threads together, each of which embeds its share of the texts one by one."""
        results: list[np.ndarray] = [np.empty(0)] * len(texts)
        started: list[float] = []
        barrier = Barrier(callers, action=lambda: started.extend((time.perf_counter(), time.process_time())))

        def call(caller: int) -> None:
            barrier.wait()
            for index in range(caller, len(texts), callers):
                results[index] = self._encode([texts[index]], None)[0]

        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(call, range(callers)))
        answer = self._answer(*started)
        _save(vectors, np.stack(results))
        return answer

    def _answer(self, start: float, cpu_start: float) -> Answer:
        """Return the time since the start, that of the CPU in all threads, and how the contestant computes."""
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "note": getattr(self._loaded, "note", "")}

    def busy(self, texts: list[str], queries: list[str], spread: float, vectors: str) -> Answer:
        """Embed the texts in one call and, evenly over its first `spread` seconds, each query on another thread."""
        with ThreadPoolExecutor(len(queries) + 1) as pool:
            start = time.perf_counter()

            def bulk() -> tuple[np.ndarray, float]:
                return self._encode(texts, None), time.perf_counter()

            def ask(index: int) -> tuple[np.ndarray, float, float]:
                time.sleep(max(0.0, start + spread * (index + 0.5) / len(queries) - time.perf_counter()))
                sent = time.perf_counter()
                return self._encode([queries[index]], None), sent, time.perf_counter() - sent

            running = pool.submit(bulk)
            asked = list(pool.map(ask, range(len(queries))))
            bulk_vectors, end = running.result()
        _save(vectors, np.concatenate([bulk_vectors, *(vector for vector, _, _ in asked)]))
        return {"latencies": [seconds for _, sent, seconds in asked if sent < end]}


def _save(path: str, vectors: np.ndarray) -> None:
    np.save(path, np.asarray(vectors, dtype=np.float32))


def serve(make_worker: Callable[[], object]) -> None:
    """Make a worker, and answer requests by its methods until standard input ends."""
    # Output that a library prints must not mix with the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        worker = make_worker()
        for line in sys.stdin:
            request = json.loads(line)
            method: Callable[..., Answer] = getattr(worker, request.pop("method"))
            try:
                answer = method(**request)
            except Exception as error:  # noqa: BLE001 - any exception of a contestant is its answer
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    modules = {**MODULES, MODEL2VEC: "model2vec"}
    serve(lambda: Worker(importlib.import_module(f"benchmarks.contestants.{modules[sys.argv[1]]}")))
