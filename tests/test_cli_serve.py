"""`akidb-mlx serve`, as a process."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

import httpx2
import pytest

from tests.support import GOLDENS, run_python

MODEL = str(GOLDENS / "tiny-bert")


def start(*arguments, open_files=None, **environment):
    limit = [] if open_files is None else ["sh", "-c", f'ulimit -S -n {open_files} && exec "$@"', "sh"]
    return subprocess.Popen(
        [*limit, sys.executable, "-m", "akidb_mlx", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AKIDB_DEVICE": "cpu", **environment},
    )


def address(process):
    """Wait until it listens."""
    line = process.stderr.readline()
    assert "serving at http://" in line, line + process.stderr.read()
    return line.split()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_finishes_what_runs_after_a_signal(number, tmp_path):
    config = tmp_path / "server.toml"
    config.write_text("shutdown_timeout_s = 60")
    process = start("-m", MODEL, "--port", "0", "--config", str(config))
    try:
        base = address(process)
        texts = [f"text {index} " + "word " * 200 for index in range(300)]
        answers = []
        with httpx2.Client(base_url=base, timeout=60) as client:
            assert client.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).status_code == 200
            # Pages of a request that began before the signal.
            began = threading.Event()

            def body():
                yield json.dumps({"model": MODEL, "input": texts}).encode()[:100]
                began.set()
                yield json.dumps({"model": MODEL, "input": texts}).encode()[100:]

            asking = threading.Thread(target=lambda: answers.append(client.post("/v1/embeddings", content=body())))
            asking.start()
            assert began.wait(60)
            while "akidb_http_requests_running 2.0" not in httpx2.get(f"{base}/metrics").text and asking.is_alive():
                pass
            process.send_signal(number)
            asking.join(60)
        assert len(answers[0].json()["data"]) == len(texts)
        assert process.wait(30) in (0, -number, 130, 128 + number)
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_more_connections_than_a_process_may_usually_open_are_served():
    process = start("-m", MODEL, "--port", "0", open_files=100)
    try:
        base = httpx2.URL(address(process))
        with ExitStack() as idle, httpx2.Client(base_url=base, timeout=60) as client:
            for _ in range(200):
                idle.enter_context(socket.create_connection((base.host, base.port), timeout=60))
            assert client.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).status_code == 200
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""


CONNECTIONS = 10_000


@pytest.fixture
def many_files():
    """Let this process and those that it starts open as many files as the system allows."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < CONNECTIONS + 1000:
        pytest.skip(f"this system allows a process {most} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


@pytest.mark.load
@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections(tmp_path):
    """Nobody else is hindered, and they are closed in time."""
    config = tmp_path / "server.toml"
    config.write_text("body_timeout_s = 20")
    process = start("-m", MODEL, "--port", "0", "--config", str(config))
    try:
        base = httpx2.URL(address(process))
        with ExitStack() as idle, httpx2.Client(base_url=base, timeout=60) as client:
            connections = [
                idle.enter_context(socket.create_connection((base.host, base.port), timeout=60))
                for _ in range(CONNECTIONS)
            ]
            for _ in range(20):
                assert client.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).status_code == 200
            assert all(one.recv(1) == b"" for one in connections)  # each one's time is over
            assert client.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).status_code == 200
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no model is named"),
        (["-m", MODEL, "--host", "0.0.0.0"], "--allow-no-key"),
        (["-m", MODEL, "--api-key-file", "/nonexistent/keys"], "the file of keys"),
        (["-m", MODEL, "--config", "/nonexistent/server.toml"], "cannot be read"),
        (["-m", MODEL, "--port", "70000"], "port"),
    ],
)
def test_what_cannot_be_served_is_explained_on_one_line(arguments, words):
    process = start(*arguments)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_explained():
    first = start("-m", MODEL, "--port", "0")
    try:
        port = address(first).rpartition(":")[2]
        second = start("-m", MODEL, "--port", port)
        _, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "ddress already in use" in error
        assert error.count("\n") == 1
    finally:
        first.terminate()
        first.communicate(timeout=30)


def test_flags_have_twins_in_the_environment():
    process = start(AKIDB_SERVE_MODELS=MODEL, AKIDB_SERVE_PORT="0")
    try:
        names = [model["id"] for model in httpx2.get(f"{address(process)}/v1/models").json()["data"]]
        assert names == [MODEL]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_without_the_extra_it_says_what_to_install():
    done = run_python(
        "import sys; sys.modules['starlette'] = None; sys.argv = ['akidb-mlx', 'serve', '-m', 'x']\n"
        "from akidb_mlx.cli import main; main()"
    )
    assert done.returncode == 1
    assert "pip install 'akidb-mlx[server]'" in done.stderr
