"""One request to the Hub and its answer, bounded in time and size whatever the other side sends.

The client's time-outs are for single reads. A server that sends a byte now and then exceeds none of them: in the
headers, in a redirect, within a body. So the client works on a thread of its own. Its caller leaves at the deadline and
closes the connection, which ends the thread.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from model_cache.errors import DownloadError, excerpt

if TYPE_CHECKING:
    from httpx2 import Response

_MAX_REDIRECTS = 10
# Seconds until the head of an answer, redirects included, and then until each next piece of its body.
_STEP_TIMEOUT_S = 60.0
# Pieces of a body that wait for the caller.
_PIECES_AHEAD = 8
# What the Hub says of an error; nothing else of such an answer is read.
_ERROR_HEADERS = (b"x-error-code", b"x-error-message")


def time_left(deadline: float) -> float:
    """Return the seconds until a deadline by `time.monotonic`, always more than 0.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline passed")
    return left


@dataclass(frozen=True)
class Answer:
    """An answer with the expected status, whose body is neither compressed nor kept in memory.

    Attributes:
        path: the path that was asked for, for messages.
        status: 200; where a range was asked for, also 206.
        headers: its headers, by names in any case.
        body: its body, piece by piece as it arrives.
    """

    path: str
    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]

    def read(self, max_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            DownloadError: it is longer than `max_bytes`.
        """
        content = bytearray()
        for piece in self.body:
            content += piece
            if len(content) > max_bytes:
                raise DownloadError(
                    f"the answer to {self.path} is longer than {max_bytes} bytes and was not read to its end: "
                    "check HF_ENDPOINT and the proxy"
                )
        return bytes(content)


@contextmanager
def get(url: str, deadline: float, **headers: str) -> Iterator[Answer]:
    """Ask for a URL of the Hub through the Hub client's own session, and follow a bounded number of redirects.

    The bodies of redirects and errors are never read. A pause of a minute ends the exchange before the deadline does.

    Args:
        url: the URL.
        deadline: by `time.monotonic`, when to give up, wherever the exchange is.
        headers: headers beside those that every request to the Hub has.

    Raises:
        TimeoutError: the deadline passed, or a minute without a byte of the body.
        HfHubHTTPError: the answer is an error.
        HTTPError: the connection failed, or the other side does not speak HTTP.
        DownloadError: the answer is neither an error nor what was asked for.
    """
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    exchange = _Exchange(url, {**build_hf_headers(), **headers}, deadline)
    try:
        path = excerpt(urlsplit(url).path)
        response = exchange.take()
        _check_head(response, path, (200, 206) if "Range" in headers else (200,))
        yield Answer(path, response.status_code, response.headers, iter(exchange.take, None))
    finally:
        exchange.leave()


class _Exchange:
    """A conversation on a thread of its own, of which the caller takes the parts as they arrive."""

    def __init__(self, url: str, headers: Mapping[str, str], deadline: float) -> None:
        self._deadline = deadline
        self._connection = _Connection()
        self._parts: Queue[Any] = Queue(_PIECES_AHEAD)
        self._ended = self._left = False
        parts = _converse(url, headers, time_left(deadline), self._connection)
        Thread(target=self._run, args=(parts,), name="model-cache-exchange", daemon=True).start()

    def _run(self, parts: Generator[Response | bytes, None, None]) -> None:
        try:
            with closing(parts):
                for part in parts:
                    self._parts.put(part)
                    if self._left:
                        return
            self._parts.put(None)
        except Exception as error:  # noqa: BLE001 - raised on the caller's thread
            self._parts.put(error)

    def take(self) -> Any:
        """Return the next part: the head, then pieces of the body, then None.

        Raises:
            TimeoutError: it did not arrive in time.
            Exception: the one that ended the conversation.
        """
        try:
            part = self._parts.get(timeout=min(_STEP_TIMEOUT_S, time_left(self._deadline)))
        except Empty:
            time_left(self._deadline)
            raise TimeoutError(f"nothing usable arrived for {_STEP_TIMEOUT_S:.0f} s") from None
        self._ended = part is None or isinstance(part, Exception)
        if isinstance(part, Exception):
            raise part
        return part

    def leave(self) -> None:
        """Take no more; the thread ends by itself, as its connection is closed."""
        self._left = True
        if not self._ended:
            self._connection.close()
        with suppress(Empty):  # the thread may wait for a place
            while True:
                self._parts.get_nowait()


class _Connection:
    """The network stream of a conversation, which another thread may close."""

    def __init__(self) -> None:
        self.stream: Any = None
        self._closed = False

    def note(self, event: str, details: Mapping[str, Any]) -> None:
        """Take note of a new connection; called by the client with all that it does."""
        if event.endswith(("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")):
            self.stream = details["return_value"]
            if self._closed:
                self.close()

    def close(self) -> None:
        """Break the connection off, also if a thread waits for its next byte."""
        self._closed = True
        if self.stream is not None:
            with suppress(OSError):
                self.stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _converse(
    url: str, headers: Mapping[str, str], timeout: float, connection: _Connection
) -> Generator[Response | bytes, None, None]:
    """Yield the head of the last answer, then its body piece by piece."""
    from httpx2 import TooManyRedirects
    from huggingface_hub import constants, get_session

    client = get_session()
    request = client.build_request(
        "GET",
        url,
        # A connection that was used before could not be closed from outside before it answers.
        headers={**headers, "Accept-Encoding": "identity", "Connection": "close"},
        timeout=min(constants.HF_HUB_DOWNLOAD_TIMEOUT, timeout),
        extensions={"trace": connection.note},
    )
    for _ in range(1 + _MAX_REDIRECTS):
        with closing(client.send(request, stream=True, follow_redirects=False)) as response:
            connection.stream = response.extensions.get("network_stream")
            if response.next_request is None:
                yield response
                yield from response.iter_raw()
                return
            request = response.next_request
    raise TooManyRedirects(f"more than {_MAX_REDIRECTS} redirects", request=request)


def _check_head(response: Response, path: str, expected: tuple[int, ...]) -> None:
    """Refuse an answer of which nothing is to be read."""
    from httpx2 import Request, Response
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    about = [(name, value[:500]) for name, value in response.headers.raw if name.lower() in _ERROR_HEADERS]
    url = response.url.copy_with(query=None)  # which may hold a signature
    hf_raise_for_status(Response(response.status_code, headers=about, request=Request("GET", url)))
    if response.status_code not in expected:
        raise DownloadError(
            f"the answer to {path} has the status {response.status_code}, expected {expected[0]}: "
            "check HF_ENDPOINT and the proxy"
        )
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadError(
            f"the answer to {path} is encoded as {excerpt(encoding)}, which was not asked for: "
            "a proxy on the way may be changing it"
        )
