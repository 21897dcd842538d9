"""The owner thread: every call ends, whatever happens to the model, the engine or the process."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

from akidb_mlx.embedding.engine import Engine, ModelFacts
from akidb_mlx.errors import AkidbMlxError, InferenceError, ModelLoadError, ServiceClosedError
from tests.support import GOLDENS, run_python


class FakeModel:
    """Its vector of a sequence is (length, first id); ids above 1000 make it fail, and it can be held."""

    facts = ModelFacts(dimension=2, max_tokens=512, token_budget=64, lanes=1, device="cpu", precision="float32")

    def __init__(self):
        self.thread = threading.current_thread()
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.runs = []

    def encode(self, batches):
        assert threading.current_thread() is self.thread
        assert 1 <= len(batches) <= self.facts.lanes
        self.entered.set()
        assert self.open.wait(30)
        self.runs.append([[len(sequence) for sequence in sequences] for sequences, _ in batches])
        return [self._encode_one(*batch) for batch in batches]

    @staticmethod
    def _encode_one(sequences, length):
        assert length >= max(map(len, sequences))
        if sequences[0][0] > 2000:
            raise SystemExit("as a native panic would be")
        if sequences[0][0] > 1000:
            raise RuntimeError("out of memory")
        return np.array([[len(s), s[0]] for s in sequences], dtype=np.float32)


class ThreeLanes(FakeModel):
    facts = replace(FakeModel.facts, lanes=3)


@pytest.fixture
def engine():
    models = []

    def load():
        models.append(FakeModel())
        return models[0]

    one = Engine(load)
    one.wait_until_loaded()
    one.model = models[0]
    yield one
    models[0].open.set()
    one.close()


def call(engine, *sequences):
    return engine.submit(sequences, lambda vectors: vectors.tolist())


def test_results_come_in_the_order_of_the_call(engine):
    sequences = [[i] * length for i, length in enumerate([3, 40, 1, 40, 7, 64, 2])]
    assert call(engine, *sequences).result(5) == [[len(s), s[0]] for s in sequences]
    assert [[sorted(batch) for batch in run] for run in engine.model.runs] == [[[64]], [[40]], [[40]], [[1, 2, 3, 7]]]


def test_lanes_run_side_by_side(engine):
    """The same call as three lanes run it; and a short one, of which each lane gets a part."""
    models = []
    wide = Engine(lambda: models.append(ThreeLanes()) or models[0])
    sequences = [[i] * length for i, length in enumerate([3, 40, 1, 40, 7, 64, 2])]
    assert call(wide, *sequences).result(5) == call(engine, *sequences).result(5)
    assert call(wide, [1] * 5, [2] * 5, [3] * 5).result(5) == [[5, 1], [5, 2], [5, 3]]
    assert models[0].runs == [[[64], [40], [40]], [[7, 3, 2, 1]], [[5], [5], [5]]]
    wide.close()


def test_a_call_with_nothing(engine):
    assert call(engine).result(5) == []


def test_everything_runs_on_one_thread(engine):
    threads = [threading.Thread(target=lambda: call(engine, [1]).result(5)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(engine.model.runs) == 20  # and `encode` asserts the thread


@pytest.mark.parametrize(
    ("token", "problem"), [(1001, "RuntimeError: out of memory"), (2001, "SystemExit: as a native")]
)
def test_a_failing_batch_fails_its_call_and_no_other(engine, token, problem):
    before, failing, after = call(engine, [1]), call(engine, [token]), call(engine, [3])
    with pytest.raises(InferenceError, match=problem):
        failing.result(5)
    assert (before.result(5), after.result(5)) == ([[1, 1]], [[1, 3]])


def test_an_error_while_finishing_fails_its_call_and_no_other(engine):
    def refuse(_):
        raise InferenceError("not a vector", 3)

    failing = engine.submit([[1]], refuse)
    with pytest.raises(InferenceError, match="not a vector"):
        failing.result(5)
    assert call(engine, [1]).result(5)


def test_a_cancelled_call_never_runs(engine):
    engine.model.open.clear()
    first, second, third = call(engine, [1]), call(engine, [2]), call(engine, [3])
    assert engine.model.entered.wait(5)
    assert second.cancel()
    engine.model.open.set()
    assert third.result(5) == [[1, 3]]
    assert first.result(5)
    with pytest.raises(CancelledError):
        second.result(0)
    assert len(engine.model.runs) == 2


def test_closing_ends_every_call(engine):
    """The batch that runs is finished; the rest of its call, and the calls behind it, fail."""
    engine.model.open.clear()
    running = call(engine, *[[1] * 64 for _ in range(5)])
    waiting = [call(engine, [2]) for _ in range(10)]
    assert engine.model.entered.wait(5)
    threading.Timer(0.2, engine.model.open.set).start()
    engine.close()
    for future in [running, *waiting]:
        with pytest.raises(ServiceClosedError):
            future.result(1)
    assert engine.status == "closed"
    assert not engine.alive
    with pytest.raises(ServiceClosedError, match="the service is closed"):
        call(engine, [1])


def test_closing_does_not_wait_for_ever(engine, monkeypatch, caplog):
    monkeypatch.setattr("akidb_mlx.embedding.engine._CLOSE_TIMEOUT_S", 0.1)
    engine.model.open.clear()
    future = call(engine, [1])
    assert engine.model.entered.wait(5)
    engine.close()
    assert "did not end" in caplog.text
    engine.model.open.set()
    assert future.result(5) == [[1, 1]]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModelLoadError("no such tensor"), ModelLoadError, "^no such tensor$"),
        (MemoryError("too large"), ModelLoadError, "MemoryError: too large"),
        (SystemExit(3), ModelLoadError, "SystemExit: 3"),
    ],
)
def test_a_load_that_fails(error, kind, message):
    def load():
        raise error

    engine = Engine(load)
    with pytest.raises(kind, match=message):
        engine.wait_until_loaded()
    assert engine.status == "failed"
    with pytest.raises(ServiceClosedError, match="owner thread died"):
        call(engine, [1])


def test_an_owner_thread_that_dies_fails_what_waits(engine, monkeypatch):
    """Whatever escapes the engine's own handling ends the thread, and nobody waits for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(engine, "_serve", lambda *_: 1 / 0)
    futures = []
    with pytest.raises(ServiceClosedError):
        while True:
            futures.append(call(engine, [1]))
    for future in futures:
        assert isinstance(future.exception(5), AkidbMlxError)
    assert engine.status == "failed"


def test_concurrent_submitting_and_closing_loses_no_call():
    for _ in range(30):
        engine = Engine(FakeModel)
        engine.wait_until_loaded()
        futures, refused = [], []

        def submit(engine=engine, futures=futures, refused=refused):
            try:
                for _ in range(50):
                    futures.append(call(engine, [1]))
            except ServiceClosedError as error:
                refused.append(error)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        engine.close()
        for thread in threads:
            thread.join(5)
        for future in futures:
            assert future.exception(5) is None or isinstance(future.exception(), ServiceClosedError)


# A whole process: how it ends, and what a fork of it may do.

SERVICE = f"""
import os, sys, threading, time
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError, ServiceClosedError
service = EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu")
texts = ["a longer text with a number of words in it " * 8] * 200_000
"""


def test_a_process_ends_with_calls_pending():
    code = """
def work():
    try:
        service.embed_array(texts)
    except ServiceClosedError as error:
        print("resolved:", error, flush=True)
threading.Thread(target=work).start()
for _ in range(3):
    service.submit(["a"])
while service._engine._calls.qsize() < 1:  # the long call is being served
    time.sleep(0.01)
print("leaving at", time.time(), flush=True)
"""
    done = run_python(SERVICE + "texts = texts[:20_000]\n" + code)
    left = float(done.stdout.split("leaving at ")[1].split()[0])
    assert time.time() - left < 5
    assert done.returncode == 0, done.stderr
    assert "resolved: the service is closed" in done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_process_ends_on_a_signal(name):
    code = SERVICE + "texts = texts[:20_000]\nprint('embedding', flush=True)\nservice.embed_array(texts)\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "embedding\n"
    time.sleep(0.5)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=5)
    assert process.returncode == (-signal.SIGTERM if name == "SIGTERM" else -signal.SIGINT)
    assert ("KeyboardInterrupt" in errors) == (name == "SIGINT")


def test_a_forked_child_gets_a_clear_error():
    code = """
service.embed(["a"])
def attempt(what):
    try:
        what()
    except ServiceClosedError as error:
        return "does not survive a fork" in str(error)
    return False
child = os.fork()
if child == 0:
    refused = attempt(lambda: service.embed(["a"])) and attempt(lambda: EmbeddingService(service._model))
    known = service.get_model_info()["dimension"] == 64 and service.health_check()["status"] == "failed"
    service.close()
    os._exit(0 if refused and known else 1)
assert os.waitpid(child, 0)[1] == 0
assert len(service.embed(["a"])) == 1
print("parent lives")
"""
    done = run_python(SERVICE + code)
    assert (done.returncode, done.stdout) == (0, "parent lives\n"), done.stderr


def test_a_spawned_process_may_have_a_service(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
from akidb_mlx import EmbeddingService
def count(_):
    with EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu") as service:
        return len(service.embed(["a", "b"]))
if __name__ == "__main__":
    with EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu"):
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(pool.map(count, range(2)))
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[2, 2]\n", done.stderr
