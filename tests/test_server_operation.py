"""The running of the server: keys, hosts, overload, loading, deaths, disconnection, hostile connections, metrics."""

import json
import logging
import re
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from akidb_mlx.errors import ConfigurationError, DeadlineExceededError, InferenceError, ServiceOverloadedError
from akidb_mlx.server.app import ENDPOINTS
from akidb_mlx.server.config import ServerConfig, load_config
from akidb_mlx.server.openapi import openapi_document
from akidb_mlx.server.problems import RequestError, describe
from akidb_mlx.server.security import ApiKeys, HostCheck
from akidb_mlx.service import EmbeddingService
from tests.servers import load_tiny, running_server
from tests.support import GOLDENS, wait_until

MODEL = "tiny-bert"
EMBED = {"model": MODEL, "input": "a text"}


def embed(client, **headers):
    return client.post("/v1/embeddings", json=EMBED, headers=headers)


class HeldModel:
    """An embedder whose calls wait until they are let go, and which notes those that were cancelled."""

    def __init__(self):
        self.service = EmbeddingService(GOLDENS / MODEL, device="cpu")
        self.calls: list[Future] = []
        self.held = True

    def submit(self, texts, **options):
        if not self.held:
            return self.service.submit(texts, **options)
        self.calls.append(Future())
        return self.calls[-1]

    def __getattr__(self, name):
        return getattr(self.service, name)

    def release(self):
        """Fail the calls that still wait."""
        self.held = False
        for call in self.calls:
            if not call.done():
                call.set_exception(InferenceError("released"))


# Seconds after which a request that a held model has, and that should not be there, fails its test.
HELD_S = 20


@contextmanager
def held_server(**config):
    """Run a server whose model holds its calls, and yield the model and a client; the calls end with it."""
    model = HeldModel()
    with running_server(lambda *_: model, **config) as client:
        client.timeout = HELD_S
        try:
            yield model, client
        finally:
            model.release()


# Keys and hosts


def test_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# the team's\nfirst\nsecond\n")
    with running_server(api_key_file=file) as client:
        assert embed(client).status_code == 401
        assert embed(client).headers["www-authenticate"] == "Bearer"
        assert embed(client, authorization="Bearer wrong").json()["error"]["code"] == "invalid_api_key"
        assert embed(client, authorization="Basic first").status_code == 401
        assert embed(client, authorization="bearer first").status_code == 200
        assert embed(client, authorization="Bearer second").status_code == 200
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/api/tags", "/nothing"):
            assert client.get(path).status_code == 401
        # With a method that a path does not take, its clients read the error too.
        assert set(client.put("/v1/rerank").json()) == {"message", "detail", "error", "error_type"}
        file.write_text("a-third-key\n")
        assert embed(client, authorization="Bearer first").status_code == 401
        assert embed(client, authorization="Bearer a-third-key").status_code == 200
        file.write_text("")
        assert embed(client, authorization="Bearer a-third-key").status_code == 401
        assert embed(client, authorization="Bearer").status_code == 401
        file.unlink()
        assert embed(client, authorization="Bearer a-third-key").status_code == 401
        file.write_text("a-third-key\n")
        assert embed(client, authorization="Bearer a-third-key").status_code == 200


def test_every_key_is_compared_in_constant_time(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("one\ntwo\nthree\n")
    keys = ApiKeys(file)
    compared = []
    monkeypatch.setattr(
        "akidb_mlx.server.security.hmac.compare_digest", lambda given, known: compared.append(known) or given == known
    )
    keys.check({"authorization": "Bearer one"})
    assert len(compared) == 3


@pytest.mark.parametrize("content", [None, "", "# nothing\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused_at_the_start(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match="the file of keys"):
        ApiKeys(file)


def test_a_key_is_ignored_where_none_is_set():
    with running_server() as client:
        assert embed(client, authorization="Bearer anything").status_code == 200


@pytest.mark.parametrize(
    ("host", "config", "allowed"),
    [
        ("localhost:8000", {}, True),
        ("127.0.0.1:1", {}, True),
        ("[::1]:8000", {}, True),
        ("127.0.0.1", {}, True),
        ("LOCALHOST", {}, True),
        ("evil.example", {}, False),
        ("localhost.evil.example:8000", {}, False),
        ("127.0.0.1.evil.example", {}, False),
        ("", {}, False),
        ("box.lan:8000", {"allowed_hosts": ["box.lan"]}, True),
        ("anything", {"host": "0.0.0.0"}, True),
        ("anything", {"host": "0.0.0.0", "allowed_hosts": ["box.lan"]}, False),
        ("box.lan", {"host": "0.0.0.0", "allowed_hosts": ["Box.lan"]}, True),
    ],
)
def test_the_host_that_a_request_is_addressed_to(host, config, allowed):
    check = HostCheck(ServerConfig(models=[MODEL], **config))
    if allowed:
        check.check({"host": host})
    else:
        with pytest.raises(RequestError, match="Host header"):
            check.check({"host": host})


def test_a_rebound_page_gets_nothing():
    with running_server() as client:
        answer = embed(client, host="evil.example")
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in embed(client, origin="https://page.example").headers
    with running_server(cors_origins=["https://page.example"]) as client:
        allowed = embed(client, origin="https://page.example")
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        assert "access-control-allow-origin" not in embed(client, origin="https://other.example").headers


# Configuration


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_other_machines_need_a_key_or_a_flag(host, tmp_path):
    flags = {"models": [MODEL], "host": host}
    with pytest.raises(ConfigurationError, match="--allow-no-key"):
        load_config(None, flags)
    assert load_config(None, {**flags, "allow_no_key": True}).host == host
    assert load_config(None, {**flags, "api_key_file": tmp_path / "keys"}).host == host


def test_flags_go_before_the_file(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('models = ["one"]\nport = 1\nmax_items = 3\n')
    config = load_config(file, {"port": 2, "host": None, "models": None})
    assert (config.models, config.port, config.max_items, config.host) == (["one"], 2, 3, "127.0.0.1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 1", "prot: Extra inputs are not permitted"),
        ("models = 1", "models: Input should be a valid list"),
        ("port = 70000", "port: "),
        ("models =", "cannot be read"),
        ("", "no model is named"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, words):
    file = tmp_path / "server.toml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        load_config(file, {})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(tmp_path / "missing.toml", {})


def test_rerankers_of_the_catalogue_are_known_by_their_names():
    config = ServerConfig(models=["a", "ms-marco-minilm-l6-v2", "a"], rerankers=["b"])
    assert config.embedders == ["a"]
    assert config.all_rerankers == ["b", "ms-marco-minilm-l6-v2"]


# Overload, loading and deaths


def test_beyond_the_bound_requests_are_refused_at_once():
    with ThreadPoolExecutor(2) as callers, held_server(max_requests=2) as (model, client):
        waiting = [callers.submit(embed, client) for _ in range(2)]
        wait_until(lambda: len(model.calls) == 2)
        refused = embed(client)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v1/models").status_code == 200
        batch = model.service.embed_detailed(["a text"])
        for call in model.calls:
            call.set_result(batch)
        assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_a_client_that_leaves_cancels_its_work():
    with held_server() as (model, client), connect(client) as left:
        body = json.dumps(EMBED).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        left.sendall(head.encode() + body)
        wait_until(lambda: model.calls)
        left.close()
        wait_until(model.calls[0].cancelled)
        model.held = False
        assert embed(client).status_code == 200


def test_while_a_model_is_loaded_the_server_is_not_ready():
    loading = threading.Event()

    def load(kind, name):
        assert loading.wait(60)
        return load_tiny(kind, name)

    with running_server(load, preload=True, load_timeout_s=0.05) as client:
        assert client.get("/health/live").status_code == 200
        answer = client.get("/health/ready")
        assert answer.status_code == client.get("/health").status_code == 503
        assert answer.json()["reason"] == f"loading {MODEL}"
        answer = embed(client)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "loading"
        assert answer.headers["retry-after"] == "1"
        loading.set()
        wait_until(lambda: embed(client).status_code == 200)
        wait_until(lambda: client.get("/health/ready").status_code == 200)


def test_a_model_gives_its_memory_to_another_when_no_request_uses_it():
    loaded = {"first": [], "second": []}

    def load(_, name):
        loaded[name].append(HeldModel())
        return loaded[name][-1]

    def post(client, name):
        return client.post("/v1/embeddings", json={"model": name, "input": "a text"})

    def answer(model):
        model.calls[0].set_result(model.service.embed_detailed(["a text"]))

    size = EmbeddingService(GOLDENS / MODEL, device="cpu").get_model_info()["weight_bytes"]
    with (
        running_server(load, models=list(loaded), max_model_bytes=size, load_timeout_s=30) as client,
        ThreadPoolExecutor(2) as callers,
    ):
        first = callers.submit(post, client, "first")
        wait_until(lambda: loaded["first"] and loaded["first"][0].calls)
        second = callers.submit(post, client, "second")
        wait_until(lambda: loaded["second"])
        assert not second.done()
        answer(loaded["first"][0])
        wait_until(lambda: loaded["second"][-1].calls)
        assert loaded["first"][0].get_model_info()["status"] == "closed"
        answer(loaded["second"][-1])
        assert first.result().status_code == second.result().status_code == 200


def test_short_texts_are_tokenised_on_the_event_loop_and_long_ones_beside_it():
    threads = []

    class NotedModel(HeldModel):
        def submit(self, texts, **options):
            threads.append(threading.current_thread().name)
            return self.service.submit(texts, **options)

    model = NotedModel()
    with running_server(lambda *_: model) as client:
        for text in ("short", "long " * 1000):
            assert client.post("/v1/embeddings", json={"model": MODEL, "input": text}).status_code == 200
    assert not threads[0].startswith("akidb-mlx-tokenizer")
    assert threads[1].startswith("akidb-mlx-tokenizer")


def test_a_model_that_cannot_be_loaded_is_503():
    with running_server(models=["nothing"]) as client:
        answer = client.post("/v1/embeddings", json={"model": "nothing", "input": "a"})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "model_unavailable"


def test_a_killed_model_is_loaded_again_once(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    loaded = []

    def load(kind, name):
        loaded.append(load_tiny(kind, name))
        return loaded[-1]

    def kill(client):
        """End the owner thread as an error would that nothing handles."""
        service = loaded[-1]
        monkeypatch.setattr(service._engine._life.loop._model, "memory", lambda: 1 / 0)
        embed(client)
        wait_until(lambda: service.get_model_info()["status"] == "failed")

    with running_server(load) as client:
        assert embed(client).status_code == 200
        kill(client)
        statuses = [embed(client).status_code]
        wait_until(lambda: statuses.append(embed(client).status_code) or statuses[-1] == 200)
        assert set(statuses) == {503, 200}
        assert client.get("/health/ready").status_code == 200
        kill(client)
        for _ in range(3):
            answer = embed(client)
            assert answer.status_code == 503
            assert "died 2 times" in answer.json()["error"]["message"]
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        assert len(loaded) == 2


def test_a_request_that_outlives_the_end_is_told_so():
    model = HeldModel()
    with ThreadPoolExecutor(1) as caller:
        with running_server(lambda *_: model, shutdown_timeout_s=0.5) as client:
            answer = caller.submit(httpx2.post, f"{client.base_url}/v1/embeddings", json=EMBED)
            wait_until(lambda: model.calls)
        assert answer.result().status_code == 503
        assert "ending" in answer.result().json()["error"]["message"]
        assert model.calls[0].cancelled()


# Hostile connections


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/embeddings HTTP/1.1\r\nhost: loc",
        b"",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
        b"\x00\xff nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000,
    ],
    ids=["half a head", "nothing", "half a body", "no HTTP", "a long head"],
)
def test_a_connection_that_stalls_or_lies_is_closed(sent):
    with running_server(body_timeout_s=0.3) as client, connect(client) as hostile:
        hostile.sendall(sent)
        received = b""
        try:
            while block := hostile.recv(4096):
                received += block
                if b"HTTP/1.1 4" in received and b"\r\n\r\n" in received:
                    break
        except ConnectionResetError:
            pass
        assert not received or received.startswith(b"HTTP/1.1 4")
        assert embed(client).status_code == 200


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000\r\n\r\n", b" "),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["head", "body", "chunks"],
)
def test_a_client_that_trickles_is_closed(sent, trickle):
    """A slow loris sends a little again and again; others are served meanwhile."""
    with running_server(body_timeout_s=1.5) as client, connect(client) as hostile:
        assert embed(client).status_code == 200
        hostile.sendall(sent)
        hostile.settimeout(0.05)
        for _ in range(200):  # 10 s
            try:
                hostile.sendall(trickle)
                if not (block := hostile.recv(4096)) or block.startswith(b"HTTP/1.1 408"):
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break
        else:
            pytest.fail("the connection was still open after 200 bits of a request")
        assert embed(client).status_code == 200


# Errors, logs and metrics


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ServiceOverloadedError("full", 2.2), 429, "3"),
        (DeadlineExceededError("late"), 503, "1"),
        (InferenceError("not finite"), 500, None),
        (RequestError(413, "x", "large"), 413, None),
        (KeyError("a secret text"), 500, None),
    ],
)
def test_each_error_has_one_status(error, status, retry, caplog):
    problem = describe(error)
    assert problem.status == status
    assert problem.headers.get("retry-after") == retry
    assert "secret" not in problem.message + caplog.text


SECRET = "zanzibarish"


def test_no_text_is_in_logs_metrics_or_errors(caplog):
    caplog.set_level(logging.DEBUG)
    with running_server(rerankers=["reranker-bert"]) as client:
        answers = [
            client.post("/v1/embeddings", json=body)
            for body in (
                {"model": MODEL, "input": SECRET},
                {"model": MODEL, "input": [SECRET, 1]},
                {"model": MODEL, "input": {SECRET: SECRET}},
                {"model": MODEL, "input": f"{SECRET} " * 700, "on_overflow": "error"},
                {"model": MODEL, "input": SECRET, "dimensions": SECRET},
            )
        ]
        answers.append(client.post("/v1/embeddings", content=b'{"model": "' + SECRET.encode()))
        answers.append(client.post("/rerank", json={"query": SECRET, "texts": [SECRET, None]}))
        answers.append(client.post("/rerank", json={"query": [SECRET], "texts": [SECRET]}))
        metrics = client.get("/metrics").text
    assert [answer.status_code for answer in answers] == [200, *[400] * 7]
    assert not [answer.text for answer in answers if SECRET in answer.text]
    assert SECRET not in metrics
    assert SECRET not in caplog.text


def test_metrics():
    with running_server() as client:
        embed(client)
        client.post("/v1/embeddings", json={"model": MODEL, "input": ["word " * 700]})
        client.post("/v1/embeddings", json={"model": "x", "input": "a"})
        client.get("/a/path/of/the/clients/own")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in answer.text.splitlines()
        if not line.startswith("#")
    }
    assert values['akidb_http_requests_total{route="/v1/embeddings",status="200"}'] == 2
    assert values['akidb_http_requests_total{route="/v1/embeddings",status="404"}'] == 1
    assert values['akidb_http_requests_total{route="other",status="404"}'] == 1
    assert values[f'akidb_texts_total{{model="{MODEL}",operation="embed"}}'] == 2
    assert values[f'akidb_truncated_texts_total{{model="{MODEL}",operation="embed"}}'] == 1
    assert values[f'akidb_engine_calls_total{{model="{MODEL}",outcome="completed"}}'] == 2
    assert values[f'akidb_engine_phase_duration_seconds_count{{model="{MODEL}",phase="compute"}}'] == 2
    assert values[f'akidb_engine_queue_requests{{model="{MODEL}"}}'] == 0
    assert values["akidb_http_requests_running"] == 1


# OpenAPI

STORED = Path(__file__).parent.parent / "docs" / "openapi.json"


def test_the_stored_description_is_the_one_that_is_served():
    with running_server() as client:
        served = client.get("/openapi.json").json()
    assert served == openapi_document(ENDPOINTS)
    assert served == json.loads(STORED.read_text(encoding="utf-8")), (
        "docs/openapi.json is old: run `python -m tests.test_server_operation` to write it"
    )


if __name__ == "__main__":
    STORED.write_text(json.dumps(openapi_document(ENDPOINTS), indent=1) + "\n", encoding="utf-8")
