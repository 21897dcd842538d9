"""AkiDB's protocol over the standard streams. The server runs in this process on pipes, or as the child it is for."""

import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ServiceOverloadedError
from akidb_mlx.stdio import protocol, streams, window
from akidb_mlx.stdio.models import LoadedModels
from akidb_mlx.stdio.server import Server
from akidb_mlx.vectors import EmbeddingBatch
from tests.fake_embedder import DIMENSION, FakeEmbedder, encode
from tests.hub import Fault
from tests.support import GOLDENS, TEXTS, read_to_end, wait_until

ROOT = GOLDENS.parent.parent
MODEL = str(GOLDENS / "tiny-bert")
PING = {"method": "ping", "params": {}}
PONG = {"status": "ok", "message": "pong"}


def load(model: str, **others: object) -> dict[str, object]:
    return {"method": "load_model", "params": {"model": model, **others}}


def embed(inputs: object, model: str = MODEL, **others: object) -> dict[str, object]:
    return {"method": "embed_batch", "params": {"model": model, "inputs": inputs, **others}}


def line(request: object) -> bytes:
    return json.dumps(request).encode() + b"\n"


def reply(content: bytes) -> dict:
    """An answer, which is JSON as the standard has it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(content, parse_constant=refuse)


def vectors(answer: dict) -> np.ndarray:
    assert answer["status"] == "ok", answer
    return np.array(answer["embeddings"], np.float32)


@contextmanager
def child(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program with pipes, as AkiDB does; one that hangs is killed, which fails the test."""
    process = subprocess.Popen(
        [sys.executable, *(command or ("-m", "akidb_mlx", "stdio"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        with process:
            yield process
    finally:
        killer.cancel()


def ask(process: subprocess.Popen[bytes], request: object) -> dict:
    process.stdin.write(request if isinstance(request, bytes) else line(request))
    process.stdin.flush()
    return reply(process.stdout.readline())


class Peer:
    """The parent's side of a server in this process."""

    def __init__(self, load: Callable[[str, str | None], FakeEmbedder]) -> None:
        requests, self.write_end = os.pipe()
        self.read_end, answers = os.pipe()
        self.requests = os.fdopen(self.write_end, "wb", 0)
        self._answers = b""
        self._error: BaseException | None = None
        self._descriptors = requests, answers
        self.server = Server(requests, answers, LoadedModels(load))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:  # noqa: BLE001 - raised by `close`
            self._error = error

    def send(self, *requests: object) -> None:
        self.requests.write(b"".join(one if isinstance(one, bytes) else line(one) for one in requests))

    def ask(self, *requests: object) -> list[dict]:
        self.send(*requests)
        return [self.receive() for _ in requests]

    def receive(self) -> dict:
        """The next answer; a minute without any fails the test."""
        while b"\n" not in self._answers:
            assert select.select([self.read_end], [], [], 60)[0]
            self._answers += os.read(self.read_end, 1 << 20)
        answer, _, self._answers = self._answers.partition(b"\n")
        return reply(answer)

    def close(self) -> None:
        """End the requests, and wait until the server has returned."""
        self.requests.close()
        self._thread.join(60)
        assert not self._thread.is_alive()
        for descriptor in (*self._descriptors, self.read_end):
            os.close(descriptor)
        if self._error is not None:
            raise self._error


@pytest.fixture
def fakes() -> dict[str, FakeEmbedder]:
    """The embedders that were loaded, by name."""
    return {}


@pytest.fixture
def peer(fakes):
    def make(name: str, _cache_dir: str | None) -> FakeEmbedder:
        return fakes.setdefault(name, FakeEmbedder(name))

    one = Peer(make)
    yield one
    for fake in fakes.values():
        fake.open.set()
    one.close()


def test_the_requests_of_akidbs_client():
    """In its order: a ping, the model, a first text, then the others; vectors are `embed`'s own to the last bit."""
    with EmbeddingService(MODEL, device="cpu") as service:
        whole, plain = service.embed_array(TEXTS), service.embed_array(TEXTS, normalize=False)
        counts = service.embed_detailed(TEXTS)
        first = service.embed_array(["warmup"])
    with child() as process:
        assert ask(process, PING) == PONG
        loaded = ask(process, load(MODEL, cache_dir="~/.cache/akidb/models"))
        assert (loaded["status"], loaded["dimension"]) == ("ok", whole.shape[1])
        assert np.array_equal(vectors(ask(process, embed(["warmup"], normalize=True))), first)
        answer = ask(process, embed(TEXTS))
        assert np.array_equal(vectors(answer), whole)
        assert (answer["dimension"], answer["count"]) == (whole.shape[1], len(TEXTS))
        assert (answer["token_counts"], answer["truncated"]) == (counts.token_counts, counts.truncated)
        assert answer["message"] == f"{sum(counts.truncated)} of {len(TEXTS)} texts were cut to the model's limit"
        assert np.array_equal(vectors(ask(process, embed(TEXTS, normalize=False))), plain)
        assert ask(process, embed([])) == {
            "status": "ok",
            "embeddings": [],
            "dimension": whole.shape[1],
            "count": 0,
            "token_counts": [],
            "truncated": [],
        }
        assert ask(process, load(MODEL))["message"] == "model already loaded"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize("writer", ["orjson", "json"])
def test_numbers_come_back_to_the_bit(monkeypatch, writer):
    """Also the smallest, the largest and those of the most digits."""
    monkeypatch.setattr(protocol, "_orjson", pytest.importorskip("orjson") if writer == "orjson" else None)
    bits = np.random.default_rng(7).integers(0, 2**32, 61_000, np.uint32).view(np.float32)
    edges = np.array([0.0, -0.0, 1.0, 1e-45, 3.4028235e38, 1.1754944e-38, 0.1, 16777217], np.float32)
    numbers = np.concatenate([edges, bits[np.isfinite(bits)][:59_992]]).reshape(600, 100)
    batch = EmbeddingBatch(numbers, [1] * 600, [False] * 600, "fake", 100)
    answer = b"".join(protocol.encode_batch(batch))
    assert answer.count(b"\n") == 1
    assert np.array_equal(vectors(reply(answer)).view(np.uint32), numbers.view(np.uint32))
    nothing = EmbeddingBatch(np.empty((0, 100), np.float32), [], [], "fake", 100)
    assert reply(b"".join(protocol.encode_batch(nothing)))["embeddings"] == []


def test_all_that_was_asked_before_the_end_is_answered():
    requests = [PING, load(MODEL), *(embed([text]) for text in TEXTS), PING]
    with child() as process:
        answers, _ = process.communicate(b"".join(map(line, requests))[:-1])  # the last line has no line feed
    assert [reply(one)["status"] for one in answers.splitlines()] == ["ok"] * len(requests)
    assert process.returncode == 0


NOISY = """
import ctypes, os, sys
from akidb_mlx import service
from akidb_mlx.cli import main

class Noisy(service.EmbeddingService):
    def __init__(self, *arguments, **options):
        self.say()
        super().__init__(*arguments, **options)

    def submit(self, *arguments, **options):
        self.say()
        return super().submit(*arguments, **options)

    def say(self):
        print("noise of Python")
        sys.__stdout__.write("noise of Python\\n")
        os.write(1, b"noise of a descriptor\\n")
        os.system("echo noise of a child; cat")
        libc = ctypes.CDLL(None)
        libc.puts(b"noise of C")
        libc.fflush(None)

service.EmbeddingService = Noisy
main(["stdio"])
"""


def test_whatever_a_library_prints_is_no_answer():
    """Nor does it read a request, which is there already or still to come."""
    with child("-c", NOISY) as process:
        assert [ask(process, one)["status"] for one in (load(MODEL), embed(["a"]), PING)] == ["ok"] * 3
        answers, said = process.communicate()
    assert answers == b""
    for source in ("Python", "a descriptor", "a child", "C"):
        assert said.count(f"noise of {source}\n".encode()) >= 2


def test_a_script_of_three_lines_takes_the_place_of_akidbs(tmp_path):
    """Beside it, in AkiDB's repository, lies another package of the same name."""
    page = (ROOT / "docs" / "stdio.md").read_text(encoding="utf-8")
    script = re.search(r"^```python title=\"onnx_server.py\"\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    assert len(list(filter(None, script.splitlines()))) == 3
    (tmp_path / "onnx_server.py").write_text(script)
    (tmp_path / "akidb_mlx").mkdir()
    (tmp_path / "akidb_mlx" / "__init__.py").write_text("raise ImportError('the wrong package')")
    for command in ([str(tmp_path / "onnx_server.py")], ["-m", "akidb_mlx.stdio"]):
        with child(*command) as process:
            assert ask(process, PING) == PONG
            process.stdin.close()
            assert process.wait() == 0


# Starts the program of its arguments with a pipe, whose other end it shares with another process, says so, and waits.
MIDDLE = """
import os, subprocess, sys
out = int(sys.argv[1])
print(subprocess.Popen(sys.argv[2:], stdin=0, stdout=out).pid, flush=True)
os.close(out)
import time
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "reading", "downloading"])
def test_it_ends_with_its_parent_although_its_input_stays_open(hub, tmp_path, state):
    """This test holds the ends of both pipes, so that only the parent's death tells."""
    hub.add("org/slow", GOLDENS / "tiny-bert")
    hub.fail(Fault("*/model.safetensors", stall=300, after=0.4, times=None))
    requests, write_end = os.pipe()
    read_end, answers = os.pipe()
    middle = subprocess.Popen(
        [sys.executable, "-c", MIDDLE, str(answers), sys.executable, "-m", "akidb_mlx", "stdio"],
        stdin=requests,
        stdout=subprocess.PIPE,
        pass_fds=[answers],
        env={**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "client")},
    )
    with middle, os.fdopen(write_end, "wb", 0) as to_child:
        os.close(requests)
        os.close(answers)
        grandchild = int(middle.stdout.readline())
        to_child.write(line(PING))
        assert os.read(read_end, 100) == b'{"status":"ok","message":"pong"}\n'
        if state == "reading":
            to_child.write(b"{" * 1000)  # a request that has not come whole
        elif state == "downloading":
            to_child.write(line(load("org/slow")))
            wait_until(lambda: any("safetensors" in one.path for one in hub.requests))
        middle.kill()
        assert select.select([read_end], [], [], 60)[0]
        assert read_to_end(read_end) == b""
        wait_until(lambda: has_ended(grandchild))


def has_ended(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def test_it_ends_when_nobody_reads_its_answers():
    with child() as process:
        process.stdout.close()
        process.stdin.write(line(PING))
        process.stdin.flush()
        assert process.wait() == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_stream_is_no_request(closed):
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m akidb_mlx stdio {closed}', sys.executable],
        input=line(PING),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0 if closed == "<&-" else 1, b"")
    assert done.stderr.count(b"\n") == (0 if closed == "<&-" else 1)


@pytest.mark.parametrize(
    ("request_line", "says"),
    [
        (b"nonsense\n", "JSON object on one line"),
        (b'{"method": "ping"\n', "JSON object on one line"),
        (b"\xff\xfe\n", "UTF-8"),
        (b"\xef\xbb\xbf{}\n", "JSON"),
        (b"[]\n", "found list"),
        (b"NaN\n", "NaN is not JSON"),
        (b'{"method": "ping", "params": {"x": Infinity}}\n', "Infinity is not JSON"),
        (b"[" * 100_000 + b"\n", "JSON|nested"),
        (b"9" * 10_000 + b"\n", "JSON|found int"),
        ({}, "method must be ping, load_model or embed_batch, found None"),
        ({"method": ["ping"]}, "method must be"),
        ({"method": "embed" * 1000}, "method must be"),
        ({**PING, "normalize": False}, "no key 'normalize'"),
        ({**PING, "params": [1]}, "params must be a JSON object, found list"),
        (load(""), "params.model"),
        (load(None), "params.model"),
        (load("fake", cache_dir=3), "params.cache_dir"),
        (load("fake", dimensions=3), "load_model has no key 'dimensions'"),
        (embed(["a"], "fake", input_type="query"), "embed_batch has no key 'input_type'"),
        ({"method": "embed_batch", "params": {"model": "fake"}}, "params.inputs must be a list"),
        (embed("a", "fake"), "params.inputs must be a list"),
        (embed(["a"] * 100_001, "fake"), "100001 texts: send at most 100000"),
        (embed(["a"], "fake", normalize="yes"), "params.normalize"),
        (embed(["a"], "fake", normalize=None), "params.normalize"),
        (embed(["a", 3], "fake"), "text 1 must be a string, found int"),
        (embed(["a", "b", "\ud800"], "fake"), "text 2 holds a lone surrogate"),
        (embed(["a"], "other"), "'other' is not loaded: call load_model first (loaded: fake)"),
    ],
)
def test_a_bad_request_is_answered_and_the_next_goes_on(peer, request_line, says):
    peer.ask(load("fake"))
    refused, following = peer.ask(request_line, PING)
    assert set(refused) == {"status", "message"}
    assert refused["status"] == "error"
    assert any(part in refused["message"] for part in says.split("|")), refused
    assert len(refused["message"]) < 500
    assert following == PONG


def test_a_line_that_is_too_long_is_answered_and_not_kept(peer, monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1 << 20)
    writer = threading.Thread(target=peer.send, args=[b"x" * (3 << 20), b"\n", PING])
    writer.start()
    assert "64 MB" in peer.receive()["message"]
    assert peer.receive() == PONG
    writer.join()


def test_blank_lines_and_the_envelope_of_json_rpc_are_harmless(peer):
    assert peer.ask(b"\n  \r\n" + line({**PING, "id": 7, "jsonrpc": "2.0"})) == [PONG]
    assert peer.ask(b'{"method": "ping"}\r\n') == [PONG]


def test_a_model_that_cannot_be_loaded_is_an_answer(tmp_path):
    with child() as process:
        missing = ask(process, load(str(tmp_path)))
        assert missing["status"] == "error"
        assert "config.json" in missing["message"]
        offline = ask(process, load("org/none"))
        assert offline["status"] == "error"
        assert "org/none" in offline["message"]
        assert "is not loaded" in ask(process, embed(["a"], "org/none"))["message"]
        assert ask(process, PING) == PONG


def test_short_names_and_the_hubs_own_in_the_folder_that_is_named(hub, tmp_path):
    """A short name that stands for other vectors, of fewer dimensions, is another model."""
    gemma, qwen = "mlx-community/embeddinggemma-300m-4bit", "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"
    hub.add(gemma, GOLDENS / "tiny-gemma3-4bit")
    hub.add(qwen, GOLDENS / "tiny-qwen3-4bit")
    folder = tmp_path / "elsewhere" / "models"
    with child(**hub.environment(tmp_path / "client")) as process:
        loaded = ask(process, load("gemma-300m-4bit", cache_dir=str(folder)))
        assert loaded["status"] == "ok", loaded
        assert any("embeddinggemma" in path.name for path in folder.iterdir())
        assert ask(process, load(gemma, cache_dir=str(folder)))["message"] == "model already loaded"
        by_short, by_hub = (vectors(ask(process, embed(["a text"], name))) for name in ("gemma-300m-4bit", gemma))
        assert np.array_equal(by_short, by_hub)
        assert ask(process, load(qwen, cache_dir=str(folder)))["message"] == "model loaded"
        assert "not loaded" in ask(process, embed(["a"], "qwen3-0.6b-4bit"))["message"]


def test_answers_come_in_the_order_of_the_requests_although_later_ones_are_done_first(peer, fakes):
    peer.ask(load("slow"), load("fast"))
    futures: list[Future[EmbeddingBatch]] = []

    def hold(*_texts, **_options):
        futures.append(Future())
        return futures[-1]

    done = FakeEmbedder.submit
    begun = []
    fakes["slow"].submit = hold
    fakes["fast"].submit = lambda texts, **options: begun.append(texts) or done(fakes["fast"], texts, **options)
    peer.send(embed(["first"], "slow"), embed(["second"], "fast"), PING, b"nonsense\n", embed(["third"], "fast"))
    wait_until(lambda: len(begun) == 2)  # later ones are read and begun while the first one runs
    futures[0].set_result(EmbeddingBatch(encode("first")[None], [5], [False], "slow", DIMENSION))
    answers = [peer.receive() for _ in range(5)]
    assert [one["status"] for one in answers] == ["ok", "ok", "ok", "error", "ok"]
    for index, text in ((0, "first"), (1, "second"), (4, "third")):
        assert np.array_equal(vectors(answers[index]), encode(text)[None])


def test_no_more_is_read_than_there_is_room_for(peer, monkeypatch):
    """A parent that does not read its answers is not read any more; none of its requests is lost."""
    monkeypatch.setattr(window, "MAX_REQUESTS", 8)
    os.set_blocking(peer.write_end, False)
    sent = next(count for count in range(100_000) if not write_within_a_second(peer.write_end, line(PING)))
    for _ in range(sent):
        assert peer.receive() == PONG
    os.set_blocking(peer.write_end, True)


def write_within_a_second(descriptor: int, content: bytes) -> bool:
    """Write where there is room for all of it; return False where none is made within a second."""
    if not select.select([], [descriptor], [], 1)[1]:
        return False
    assert os.write(descriptor, content) == len(content)
    return True


def test_a_request_larger_than_all_room_enters_alone():
    room = window.Window()
    never, at_once = (lambda: False), (lambda: True)
    assert room.enter(window.MAX_BYTES * 2, never)
    assert not room.enter(1, at_once)
    room.leave(window.MAX_BYTES * 2)
    assert room.enter(window.MAX_BYTES, never)
    assert not room.enter(1, at_once)
    room.leave(window.MAX_BYTES)
    assert all(room.enter(0, at_once) for _ in range(window.MAX_REQUESTS))
    assert not room.enter(0, at_once)


def test_a_full_queue_is_waited_for_and_refused_only_alone(peer, fakes):
    peer.ask(load("fake"))
    accepted: list[Future[EmbeddingBatch]] = []

    def submit(texts, **_options):
        if any(not future.done() for future in accepted) or texts == ["too many"]:
            raise ServiceOverloadedError("the queue is full", 1.0)
        accepted.append(Future())
        return accepted[-1]

    fakes["fake"].submit = submit
    peer.send(embed(["a"], "fake"), embed(["b"], "fake"), embed(["too many"], "fake"))
    for text in "ab":
        wait_until(lambda: accepted and not accepted[-1].done())
        accepted[-1].set_result(EmbeddingBatch(encode(text)[None], [1], [False], "fake", DIMENSION))
        assert np.array_equal(vectors(peer.receive()), encode(text)[None])
    assert peer.receive() == {"status": "error", "message": "the queue is full"}


class Panic(BaseException):
    """Stands for a panic of a library in Rust."""


@pytest.mark.parametrize("where", ["submit", "future"])
def test_a_panic_fails_one_request(peer, fakes, where):
    peer.ask(load("fake"))
    done = fakes["fake"].submit

    def submit(texts, **options):
        if texts != ["bad"]:
            return done(texts, **options)
        if where == "submit":
            raise Panic("index out of bounds")
        future: Future[EmbeddingBatch] = Future()
        future.set_exception(Panic("index out of bounds"))
        return future

    fakes["fake"].submit = submit
    failed, following = peer.ask(embed(["bad"], "fake"), embed(["good"], "fake"))
    assert failed == {"status": "error", "message": "internal error: Panic: index out of bounds"}
    assert np.array_equal(vectors(following), encode("good")[None])


def test_what_is_not_a_number_is_never_written(peer, fakes):
    """The engine refuses such vectors; if one came all the same, the answer would still be no success."""
    peer.ask(load("fake"))
    future: Future[EmbeddingBatch] = Future()
    future.set_result(EmbeddingBatch(np.full((1, 2), np.nan, np.float32), [1], [False], "fake", 2))
    fakes["fake"].submit = lambda *_, **__: future
    failed, following = peer.ask(embed(["a"], "fake"), PING)
    assert failed["status"] == "error"
    assert following == PONG


def test_a_model_that_failed_for_good_is_loaded_again():
    loads = []
    models = LoadedModels(lambda name, _: loads.append(name) or FakeEmbedder(name))
    first, is_new = models.load("fake", None)
    assert is_new
    assert models.load("fake", None) == (first, False)
    first.status = "failed"
    second, is_new = models.load("fake", None)
    assert is_new
    assert models.get("fake") is second is not first
