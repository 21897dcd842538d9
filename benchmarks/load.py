"""Measure one service under load, the figures of "Under load" in docs/performance.md.

python -m benchmarks.load [--only callers,mutex] [--json FILE]

Each scenario runs in a process of its own, with all-MiniLM-L6-v2 unless it says otherwise, and checks all vectors. The
exit status is 1 if a figure misses its bound.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

import akidb_mlx.service
from akidb_mlx import EmbeddingBatch, EmbeddingService, Settings
from akidb_mlx.engine.backend import TokenRows
from akidb_mlx.errors import ServiceOverloadedError
from akidb_mlx.runtime import mlx_import
from benchmarks import random_qwen3
from benchmarks.compare import find_model
from benchmarks.rows import Row, run, sample_resident_memory
from benchmarks.workloads import mixed, sentences

_MODEL = "minilm-l6-v2"
# Vectors of one text in different batches differ by the rounding of float32.
_TOLERANCE = 2e-6

Vectors = NDArray[np.float32]


def callers(threads: int = 256, calls: int = 20) -> list[Row]:
    """Embed one text at a time on each of many threads."""
    texts = distinct_texts(threads * calls)
    with EmbeddingService(_MODEL) as service:
        expected = service.embed_array(texts)
        one_call, all_callers, latencies = [], [], []
        for _ in range(3):
            began = time.perf_counter()
            service.embed_array(texts)
            one_call.append(time.perf_counter() - began)
            began = time.perf_counter()
            found, waits = embed_on_threads(service, texts, threads)
            all_callers.append(time.perf_counter() - began)
            latencies += waits
            _check_vectors(found, expected)
    share = statistics.median(one_call) / statistics.median(all_callers)
    spread = float(np.percentile(latencies, 99)) / statistics.mean(latencies)
    name = f"{threads} threads of {calls} calls with one text"
    rate = len(texts) / statistics.median(all_callers)
    return [
        Row(f"{name}: calls answered", "100 %", f"{len(found)} of {len(texts)}", len(found) == len(texts)),
        Row(
            f"{name}: throughput divided by that of one call",
            "≥ 80 %",
            f"{share:.0%} ({rate:.0f} texts/s)",
            share >= 0.8,
        ),
        Row(f"{name}: 99th percentile of the latency divided by the mean", "≤ 3", f"{spread:.2f}", spread <= 3),
    ]


def mutex(threads: int = 64, calls: int = 10) -> list[Row]:
    """Embed on threads that hold one lock around `embed`, as the callers of the first integration did."""
    texts = distinct_texts(threads * calls)
    with EmbeddingService(_MODEL) as service, ThreadPoolExecutor(threads) as pool:
        expected = service.embed_array(texts)
        lock = threading.Lock()

        def ask(number: int) -> Vectors:
            with lock:
                return service.embed_array([texts[number]])

        asked = [pool.submit(ask, number) for number in range(len(texts))]
        answered = wait(asked, timeout=300).done
        _check_vectors(np.concatenate([future.result() for future in asked if future in answered]), expected)
    measured = f"{len(answered)} of {len(asked)}"
    return [Row(f"{threads} threads sharing a mutex: calls answered", "100 %", measured, len(answered) == len(asked))]


def busy(texts: int = 20_000, pause: float = 0.25) -> list[Row]:
    """Embed a short query now and then while another thread embeds many texts."""
    bulk, query = distinct_texts(texts), "a short question"
    with EmbeddingService(_MODEL) as service, ThreadPoolExecutor(1) as pool:
        expected = service.embed_array([query])
        before = service.get_metrics()["latency_s"]["compute"]
        running = pool.submit(service.embed_array, bulk)
        latencies = []
        while not running.done():
            began = time.perf_counter()
            found = service.embed_array([query])
            latencies.append(time.perf_counter() - began)
            _check_vectors(found, expected)
            time.sleep(pause)
        after = service.get_metrics()["latency_s"]["compute"]
        running.result()
    step = (after["sum"] - before["sum"]) / (after["count"] - before["count"])
    p95 = float(np.percentile(latencies, 95))
    measured = f"{p95 / step:.1f} ({1000 * p95:.0f} ms; {len(latencies)} queries, batches of {1000 * step:.0f} ms)"
    name = f"a short query during {texts} texts: 95th percentile of the latency divided by the time of a batch"
    return [Row(name, "≤ 5", measured, p95 <= 5 * step)]


def overload(seconds: float = 60, times: float = 10, clients: int = 10, size: int = 16, queued: int = 64) -> list[Row]:
    """Offer calls at many times the rate at which they can be answered; the first text of each is the same."""
    known = sentences()
    settings = Settings(max_queued_requests=queued)
    with EmbeddingService(_MODEL, settings=settings) as service, ThreadPoolExecutor(clients) as pool:
        expected = service.embed_array(known[:1])
        began = time.perf_counter()
        service.embed_array(distinct_texts(40 * size))
        interval = clients * (time.perf_counter() - began) / 40 / times
        numbers = itertools.count()
        refusals: list[float] = []
        answers: list[bool] = []
        end = time.perf_counter() + seconds

        def check(future: Future[EmbeddingBatch]) -> None:
            answers.append(are_right(future.result().vectors[0], expected[0]))

        def offer(_: int) -> int:
            accepted = 0
            due = time.perf_counter()
            while due < end:
                time.sleep(max(0.0, due - time.perf_counter()))
                due += interval
                number = next(numbers)
                texts = [known[0], *(f"{known[(number + i) % len(known)]} {number}" for i in range(1, size))]
                asked = time.perf_counter()
                try:
                    service.submit(texts).add_done_callback(check)
                    accepted += 1
                except ServiceOverloadedError:
                    refusals.append(time.perf_counter() - asked)
            return accepted

        with sample_resident_memory(skip_s=seconds / 3) as samples:
            accepted = sum(pool.map(offer, range(clients)))
        while service.get_metrics()["queue"]["requests"]:
            time.sleep(0.05)
        _check_vectors(service.embed_array(known[:1]), expected)
        healthy = service.health_check()["status"] == "ok"
    correct = len(answers) == accepted and all(answers)
    middle = (max(samples) + min(samples)) / 2
    flat = max(samples) / middle - 1
    refused, slowest = (1000 * float(value) for value in np.percentile(refusals, [99.9, 100]))
    name = f"{times:g} times the load for {seconds:g} s"
    offered = (accepted + len(refusals)) / accepted
    return [
        Row(f"{name}: accepted calls that were answered correctly", "100 %", f"{sum(answers)} of {accepted}", correct),
        Row(f"{name}: calls offered divided by calls accepted", "≥ 5", f"{offered:.1f}", offered >= 5),
        Row(
            f"{name}: 99.9th percentile of the time of a refusal",
            "< 10 ms",
            f"{refused:.1f} ms (slowest: {slowest:.0f} ms)",
            refused < 10,
        ),
        Row(f"{name}: healthy afterwards", "yes", "yes" if healthy else "no", healthy),
        Row(f"{name}: change of the resident memory", "± 5 %", f"± {flat:.1%} of {middle / 1e6:.0f} MB", flat <= 0.05),
    ]


def memory(calls: int = 10_000) -> list[Row]:
    """Measure the memory over many calls with texts of random length."""
    model = find_model("minilm")
    assert model is not None
    known = mixed(500, Path(model.directory))
    random = np.random.default_rng(7)
    with EmbeddingService(_MODEL) as service:
        expected = service.embed_array(known)
        process = psutil.Process()
        for call in range(calls):
            number = int(random.integers(len(known)))
            _check_vectors(service.embed_array([known[number]]), expected[number : number + 1])
            if call == calls // 2:
                half = process.memory_info().rss
        end = process.memory_info().rss
    growth = end / half - 1
    measured = f"{growth:+.2%} of {half / 1e6:.0f} MB"
    name = f"{calls} calls of random length: growth of the resident memory in the last {calls // 2}"
    return [Row(name, "< 2 %", measured, growth < 0.02)]


def overhead(rounds: int = 200) -> list[Row]:
    """Embed a short text with the service, and compute the same tokens with the model alone."""
    mlx_import.prepare()
    from akidb_mlx.backends.mlx.model import EmbeddingModel
    from akidb_mlx.backends.mlx.plan import execution_plan
    from akidb_mlx.checkpoint.checkpoint import read_checkpoint
    from akidb_mlx.checkpoint.tokenizer import TextTokenizer

    text = "a short question"
    with EmbeddingService(_MODEL, device="cpu") as service:
        checkpoint = read_checkpoint(Path(service.get_model_info()["path"]))
        plan = execution_plan("cpu", "auto", None, checkpoint.dtype, False, checkpoint.encoder_config.hidden_size)
        model = EmbeddingModel(checkpoint, plan)
        (window,) = TextTokenizer(checkpoint)([text], "", "truncate", 0)[0].windows
        rows = TokenRows(window[None], np.array([len(window)], np.int32), np.empty(0, np.int32))
        whole, bare = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            (vectors,) = model.start([rows]).result()
            middle = time.perf_counter()
            found = service.embed_array([text])
            whole.append(time.perf_counter() - middle)
            bare.append(middle - began)
        _check_vectors(found, vectors / np.linalg.norm(vectors))
    more = statistics.median(whole) - statistics.median(bare)
    measured = f"{1000 * more:.2f} ms over {1000 * statistics.median(bare):.2f} ms"
    return [
        Row("`embed_array` of a short text: time beyond the bare forward pass", "< 0.5 ms", measured, more < 0.0005)
    ]


def prompts(texts: int = 48, rounds: int = 3) -> list[Row]:
    """Embed short queries with Qwen3's instruction, once with its keys and values shared and once without."""
    queries = sorted(sentences(), key=len)[:texts]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    found: dict[bool, Vectors] = {}
    least = akidb_mlx.service.MIN_PREFIX
    with EmbeddingService(random_qwen3.ensure()) as service:
        for _ in range(rounds):
            for shared in (True, False):
                akidb_mlx.service.MIN_PREFIX = least if shared else 1 << 30
                began = time.perf_counter()
                found[shared] = service.embed_array(queries, input_type="query")
                seconds[shared].append(time.perf_counter() - began)
    gain = statistics.median(seconds[False]) / statistics.median(seconds[True])
    rate = texts / statistics.median(seconds[True])
    difference = float(np.abs(found[True] - found[False]).max())
    name = f"{texts} short queries of Qwen3-0.6B, the instruction shared"
    return [
        Row(
            f"{name}: throughput divided by that without sharing",
            "≥ 1.8 times",
            f"{gain:.2f} ({rate:.1f} texts/s)",
            gain >= 1.8,
        ),
        Row(f"{name}: largest difference between the vectors", "≤ 1e-5", f"{difference:.1e}", difference <= 1e-5),
    ]


def embed_on_threads(service: EmbeddingService, texts: list[str], threads: int) -> tuple[Vectors, list[float]]:
    """Embed one text at a time on each of many threads; return the vectors, and the seconds of each call."""
    barrier = threading.Barrier(threads)
    latencies: list[float] = []

    def ask(part: list[str]) -> list[Vectors]:
        barrier.wait()
        found = []
        for text in part:
            began = time.perf_counter()
            found.append(service.embed_array([text]))
            latencies.append(time.perf_counter() - began)
        return found

    with ThreadPoolExecutor(threads) as pool:
        calls = len(texts) // threads
        parts = pool.map(ask, [texts[start : start + calls] for start in range(0, len(texts), calls)])
        return np.concatenate([vector for part in parts for vector in part]), latencies


SCENARIOS: dict[str, Callable[[], list[Row]]] = {
    scenario.__name__: scenario for scenario in (callers, mutex, busy, overload, memory, overhead, prompts)
}


def distinct_texts(count: int) -> list[str]:
    """Return distinct STS sentences, since equal ones are computed once in a call but not always in several calls."""
    known = list(dict.fromkeys(sentences()))
    return [f"{known[index % len(known)]} {index // len(known) or ''}".strip() for index in range(count)]


def are_right(found: Vectors, expected: Vectors) -> bool:
    """Return whether vectors are those of the same texts in other batches."""
    return bool(np.abs(found - expected).max() <= _TOLERANCE)


def _check_vectors(found: Vectors, expected: Vectors) -> None:
    if not are_right(found, expected):
        raise AssertionError(f"a vector is off by {np.abs(found - expected).max():.1e}")


if __name__ == "__main__":
    run(SCENARIOS, "Measure one service under load.")
