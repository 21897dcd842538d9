"""Measure the server under load on loopback, the figures of "Under load" in docs/server.md.

python -m benchmarks.server_load [--only singles,overload] [--json FILE]

oha makes the requests, which `make bench-server-load` installs. It shares the machine's cores with the server. One more
connection checks vectors all the while. The exit status is 1 if a figure misses its bound.
"""

from __future__ import annotations

import base64
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from compileall import compile_dir
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import akidb_mlx
import model_cache
from akidb_mlx import EmbeddingService
from akidb_mlx.server.config import ServerConfig
from benchmarks import oha
from benchmarks.load import are_right, distinct_texts, embed_on_threads
from benchmarks.rows import Row, run, sample_resident_memory

_MODEL = "minilm-l6-v2"
_HEADERS = {"content-type": "application/json"}
# Most requests that the server answers at once unless it is told otherwise.
_BOUND: int = ServerConfig.model_fields["max_requests"].default


class Server:
    """`akidb-mlx serve` in a process of its own, with one connection to it."""

    def __init__(self, process: psutil.Popen, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}/v1/embeddings"
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def embed(self, texts: list[str]) -> NDArray[np.float32] | None:
        """Return the vectors of texts, or None if the server is too busy."""
        self._connection.request("POST", "/v1/embeddings", _body(texts), _HEADERS)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status == 429:
            return None
        if answer.status != 200:
            raise AssertionError(f"status {answer.status}: {content[:200]!r}")
        rows = [base64.b64decode(item["embedding"]) for item in json.loads(content)["data"]]
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)

    def engine_seconds(self) -> tuple[float, float]:
        """Return how long all calls of the engine took together, and how many they were."""
        self._connection.request("GET", "/metrics")
        lines = self._connection.getresponse().read().decode().splitlines()
        name = "akidb_engine_phase_duration_seconds"
        found = {line.split("{")[0]: float(line.split()[-1]) for line in lines if 'phase="call"' in line}
        return found[f"{name}_sum"], found[f"{name}_count"]

    @contextmanager
    def checking(self, texts: list[str], expected: NDArray[np.float32]) -> Iterator[list[bool]]:
        """Ask for texts again and again, and collect whether each vector is right."""
        checked: list[bool] = []
        ended = threading.Event()

        def check() -> None:
            number = 0
            while not ended.wait(0.2):
                found = self.embed([texts[number % len(texts)]])
                if found is not None:
                    checked.append(are_right(found, expected[number % len(texts)][None]))
                number += 1

        thread = threading.Thread(target=check)
        thread.start()
        yield checked
        ended.set()
        thread.join()


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """Start a server with the model, and stop it at the end."""
    command = [sys.executable, "-m", "akidb_mlx", "serve", "-m", _MODEL, "--port", "0", *flags]
    process = psutil.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Server(process, int(process.stderr.readline().rsplit(":", 1)[1]))
    finally:
        process.terminate()
        process.wait()


def singles(connections: int = 500, seconds: int = 60) -> list[Row]:
    """Embed one short text a request on many connections."""
    texts = distinct_texts(5120)
    with EmbeddingService(_MODEL) as service:
        expected = service.embed_array(texts[:64])
        times = []
        for _ in range(3):
            began = time.perf_counter()
            embed_on_threads(service, texts, 256)
            times.append(time.perf_counter() - began)
        in_process = len(texts) / statistics.median(times)
    with serving("--preload") as server:
        server.embed(texts[:64])
        before = _cpu_seconds(server)
        with server.checking(texts[:64], expected) as checked:
            report = _load(server, texts, connections, seconds)
        used = _cpu_seconds(server) - before
    codes, rate = report["statusCodeDistribution"], report["summary"]["requestsPerSec"]
    answered, failed = codes.get("200", 0), oha.count_failed(report, "200")
    name = f"{connections} connections for {seconds} s, one short text a request"
    return [
        Row(f"{name}: requests that were not answered", "0", f"{failed} of {failed + answered}", not failed),
        Row(f"{name}: right vectors among those checked", "all", f"{sum(checked)} of {len(checked)}", all(checked)),
        Row(
            f"{name}: throughput divided by that of 256 threads in one process",
            "≥ 75 %",
            f"{rate / in_process:.0%} ({rate:.0f} of {in_process:.0f} texts/s)",
            rate >= 0.75 * in_process,
        ),
        Row(f"{name}: CPU time of the server per text", "", f"{1000 * used / answered:.1f} ms", True),
    ]


def latency(texts: int = 100, rounds: int = 15) -> list[Row]:
    """Embed single texts over HTTP on one connection and in this process, round after round.

    Never in turn: a process that has just computed keeps its threads awake for a while, beside those of the other. The
    time that the engine takes differs between two processes by more than HTTP adds, so a second figure leaves it out.
    """
    known = distinct_texts(texts)
    beyond, added, direct = [], [], []
    with EmbeddingService(_MODEL) as service, serving("--preload") as server:
        for text in known[:20]:
            found = server.embed([text])
            if found is None or found.tobytes() != service.embed_array([text]).tobytes():
                raise AssertionError("a vector of a request that ran alone differs")
        for _ in range(rounds):
            seconds = []
            before = service.get_metrics()["latency_s"]["call"]
            for text in known:
                began = time.perf_counter()
                service.embed_array([text])
                seconds.append(time.perf_counter() - began)
            after = service.get_metrics()["latency_s"]["call"]
            direct.append(statistics.median(seconds))
            around = statistics.mean(seconds) - (after["sum"] - before["sum"]) / texts
            total, count = server.engine_seconds()
            report = _load(server, known, 1, ceil(sum(seconds)))
            if oha.count_failed(report, "200"):
                raise AssertionError("a request was not answered")
            total_after, count_after = server.engine_seconds()
            beyond.append(report["latencyPercentiles"]["p50"] - direct[-1])
            engine = (total_after - total) / (count_after - count)
            added.append(report["summary"]["average"] - engine - around)
    more, http = statistics.median(beyond), statistics.median(added)
    in_process = f"over {1000 * statistics.median(direct):.2f} ms"
    name = "one connection: {} beyond that in one process"
    return [
        Row(name.format("median"), "≤ 1 ms", f"{1000 * more:.2f} ms {in_process}", more <= 0.001),
        Row(name.format("average outside the engine"), "≤ 1 ms", f"{1000 * http:.2f} ms {in_process}", http <= 0.001),
    ]


def bulk(size: int = 64, rounds: int = 12) -> list[Row]:
    """Embed many texts a request, in turn over HTTP and in this process."""
    texts = distinct_texts(size * rounds)
    ratios = []
    with EmbeddingService(_MODEL) as service, serving("--preload") as server:
        server.embed(texts[:size]), service.embed_array(texts[:size])
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            began = time.perf_counter()
            found = server.embed(part)
            middle = time.perf_counter()
            expected = service.embed_array(part)
            ratios.append((time.perf_counter() - middle) / (middle - began))
            if found is None or not are_right(found, expected):
                raise AssertionError("a vector differs")
    share = statistics.median(ratios)
    name = f"{size} texts a request: throughput divided by that in one process"
    return [Row(name, "≥ 92 %", f"{share:.0%}", share >= 0.92)]


def overload(seconds: int = 60, times: int = 5) -> list[Row]:
    """Offer requests at many times the rate at which they can be answered, whether earlier ones are or not."""
    texts = distinct_texts(5120)
    with EmbeddingService(_MODEL) as service:
        expected = service.embed_array(texts[:64])
    with serving("--preload") as server:
        server.embed(texts[:64])
        capacity = _load(server, texts, 500, 10)["summary"]["requestsPerSec"]
        with (
            server.checking(texts[:64], expected) as checked,
            sample_resident_memory(skip_s=seconds / 3, process=server.process) as samples,
        ):
            report = _load(server, texts, 2 * _BOUND, seconds, "-q", str(round(times * capacity)))
        answers = server.embed(texts[:1]) is not None
    codes = report["statusCodeDistribution"]
    answered, refused = codes.get("200", 0), codes.get("429", 0)
    others = oha.count_failed(report, "200", "429")
    slowest, throughput = report["latencyPercentilesSuccessful"]["p99"], answered / seconds
    wait = _BOUND / throughput
    middle = (max(samples) + min(samples)) / 2
    flat = max(samples) / middle - 1
    name = f"{times} times the load for {seconds} s"
    return [
        Row(
            f"{name}: answers beside 200 and 429", "0", f"{others} ({answered} answered, {refused} refused)", not others
        ),
        Row(f"{name}: right vectors among those checked", "all", f"{sum(checked)} of {len(checked)}", all(checked)),
        Row(
            f"{name}: 99th percentile of the latency of answers divided by the time of {_BOUND} texts",
            "≤ 1.5",
            f"{slowest / wait:.2f} ({slowest:.1f} s; {throughput:.0f} texts/s)",
            slowest <= 1.5 * wait,
        ),
        Row(f"{name}: answers afterwards", "yes", "yes" if answers else "no", answers),
        Row(f"{name}: change of the resident memory", "± 5 %", f"± {flat:.1%} of {middle / 1e6:.0f} MB", flat <= 0.05),
    ]


def start(rounds: int = 5) -> list[Row]:
    """Start a server, and ask for a vector as soon as it listens."""
    for file in (akidb_mlx.__file__, model_cache.__file__):  # as pip does at the installation
        compile_dir(Path(file).parent, quiet=1)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        with serving() as server:
            server.embed(["a short question"])
            seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    return [Row("from the command to the first vector", "≤ 1.0 s", f"{median:.2f} s", median <= 1)]


def _body(texts: list[str]) -> str:
    return json.dumps({"model": _MODEL, "input": texts, "encoding_format": "base64"})


def _cpu_seconds(server: Server) -> float:
    times = server.process.cpu_times()
    return float(times.user + times.system)


def _load(server: Server, texts: list[str], connections: int, seconds: int, *flags: str) -> dict[str, Any]:
    """Send a request for each text in turn, and return oha's report."""
    bodies = (_body([text]) for text in texts)
    return oha.send(server.url, bodies, connections, seconds, "--stats-success-breakdown", *flags)


SCENARIOS: dict[str, Callable[[], list[Row]]] = {
    scenario.__name__: scenario for scenario in (singles, latency, bulk, overload, start)
}

if __name__ == "__main__":
    run(SCENARIOS, "Measure the server under load.")
