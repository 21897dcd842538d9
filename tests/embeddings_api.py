"""A local stand-in for an OpenAI-compatible API, whose answers and faults a test decides."""

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSION = 8


def vector(text: str, size: int = DIMENSION) -> np.ndarray:
    """Return the vector that the stand-in gives a text; its length is 1."""
    values = np.random.default_rng(list(text.encode()) or [0]).standard_normal(DIMENSION)[:size]
    return (values / np.linalg.norm(values)).astype(np.float32)


@dataclass
class Reply:
    """An answer to be sent: a body, or a generator of its parts, after which the connection ends."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    after: threading.Event | None = None


@dataclass
class Request:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def texts(self) -> list[str]:
        return self.body["input"]


def answer(request: Request, **changes: Any) -> dict[str, Any]:
    """Return a right answer; `changes` replace its fields."""
    size = request.body.get("dimensions", DIMENSION)
    data = [
        {"object": "embedding", "index": index, "embedding": b64encode(vector(text, size).tobytes()).decode()}
        for index, text in enumerate(request.texts)
    ]
    tokens = sum(len(text.split()) for text in request.texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request.body["model"], "usage": usage, **changes}


def refusal(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def event(text: str | None = None, reason: str | None = None, **changes: Any) -> bytes:
    """Return an event of a chat completion; `changes` replace its fields."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": choices, **changes}).encode() + b"\n\n"


def written(text: str, reason: str | None = "stop", end: bytes = b"data: [DONE]\n\n") -> Reply:
    """Return the answer of a chat model, word by word."""
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    events = [event(""), *map(event, words), event(None, reason)]
    return Reply(b"".join(events) + end, headers={"content-type": "text/event-stream"})


class StandIn:
    """The server's state: the requests it was sent, and the function that answers the next ones."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.respond: Callable[[Request], Reply | dict[str, Any]] = answer
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def faults_first(self, *faults: Reply) -> None:
        """Answer the next requests with these, and then as it should."""
        left = list(faults)
        self.respond = lambda request: left.pop(0) if left else answer(request)

    def handle(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            reply = self.respond(request)
            reply = reply if isinstance(reply, Reply) else Reply(reply)
            if reply.after is not None:
                reply.after.wait(30)
            return reply
        finally:
            with self._lock:
                self.running -= 1


@contextmanager
def running_api() -> Iterator[StandIn]:
    """Run a stand-in on a port of its own."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer leaves in one piece
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = state.handle(Request(self.path, headers, body, time.monotonic()))
            if reply.reset:
                self.close_connection = True
                self.connection.close()
                return
            parts = reply.body if isinstance(reply.body, Generator) else None
            content = (
                reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body if parts is None else 0).encode()
            )
            own = {"content-length": str(len(content))} if parts is None else {"connection": "close"}
            try:
                self.send_response(reply.status)
                for name, value in {**own, **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for part in [content] if parts is None else parts:
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # of a connection that a test reset

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
