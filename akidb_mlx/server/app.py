"""The ASGI application: what every request passes through, and its life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from akidb_mlx.errors import ServiceClosedError
from akidb_mlx.server import page
from akidb_mlx.server.body import parse_json, read_body
from akidb_mlx.server.calls import ServerState
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.dialects import extraction, ollama, openai, operations, rerank, tei
from akidb_mlx.server.endpoint import Endpoint, json_response
from akidb_mlx.server.facades import Facades
from akidb_mlx.server.metrics import ServerMetrics
from akidb_mlx.server.models import Kind, Models, load_model
from akidb_mlx.server.openapi import openapi_document
from akidb_mlx.server.problems import ErrorShape, RequestError, describe, ollama_error, openai_error
from akidb_mlx.server.security import ApiKeys, HostCheck

ENDPOINTS: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *rerank.ENDPOINTS,
    *extraction.ENDPOINTS,
    *ollama.ENDPOINTS,
    *tei.ENDPOINTS,
    *operations.ENDPOINTS,
    *page.ENDPOINTS,
)

# What is logged and counted where the client left before its answer.
_CLIENT_LEFT = 499
# Seconds after which a request is watched for its client's leaving, which takes longer than a short answer is worth.
_WATCHED_AFTER_S = 0.1


def create_app(config: ServerConfig, load: Callable[[Kind, str], Any] = load_model) -> ASGIApp:
    """Return the application.

    Args:
        config: the server's configuration.
        load: makes the model of a kind and a name.

    Raises:
        ConfigurationError: the file of keys cannot be read.
    """
    keys = None if config.api_key_file is None else ApiKeys(config.api_key_file)
    models = Models(config, load)
    state = ServerState(config, models, ServerMetrics(), Facades(config))

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        tokenizers = ThreadPoolExecutor(config.tokenizer_threads, "akidb-mlx-tokenizer")
        asyncio.get_running_loop().set_default_executor(tokenizers)
        models.start()
        try:
            yield
        finally:
            state.facades.close()
            await models.close()

    app: ASGIApp = Application(state, keys, HostCheck(config), Router(lifespan=lifespan).lifespan)
    if config.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        app = CORSMiddleware(app, config.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    return app


class Application:
    """Answers requests, and counts them; one is let in by its host, its key and the number of those that run."""

    def __init__(self, state: ServerState, keys: ApiKeys | None, hosts: HostCheck, live: ASGIApp) -> None:
        self._state = state
        self._keys = keys
        self._hosts = hosts
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass the messages of the server's life on."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        began = time.monotonic()
        endpoint = _find_endpoint(scope["method"], scope["path"])
        status = 500
        self._state.metrics.begin()
        try:
            response = await self._answer(endpoint, scope, receive)
            status = response.status_code
            await response(scope, receive, send)
        finally:
            route = endpoint.path if endpoint else "other"
            self._state.metrics.end(route, status, time.monotonic() - began)

    async def _answer(self, endpoint: Endpoint | None, scope: Scope, receive: Receive) -> Response:
        """Return the answer to a request, which is an error's where it has one."""
        state, config = self._state, self._state.config
        try:
            headers = Headers(scope=scope)
            self._admit(endpoint, scope["method"], headers)
            if endpoint is None:
                return _refuse_path(scope["method"], scope["path"])
            if not endpoint.bodies:
                return await endpoint.answer(state)
            content = await read_body(headers, receive, config.max_body_bytes, config.body_timeout_s)
            body = endpoint.parse(parse_json(content))
            return await _unless_disconnected(receive, endpoint.answer(state, body))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except asyncio.CancelledError:  # by the server, when the time of the requests that run is over
            return _answer_error(ServiceClosedError("the server is ending"), scope["method"], scope["path"])
        except Exception as error:  # noqa: BLE001 - every error is described to the client
            return _answer_error(error, scope["method"], scope["path"])

    def _admit(self, endpoint: Endpoint | None, method: str, headers: Headers) -> None:
        most = self._state.config.max_requests
        if method == "POST" and self._state.metrics.running > most:  # first, since it costs least
            raise RequestError(429, "overloaded", f"{most} requests are being answered: retry later")
        self._hosts.check(headers)
        if self._keys is not None and not (endpoint and endpoint.is_open):
            self._keys.check(headers)


async def _describe_api(_: ServerState) -> Response:
    """Return the description of all routes."""
    return json_response(openapi_document(ENDPOINTS))


_DESCRIPTION = Endpoint("GET", "/openapi.json", "Describe all routes.", openai_error, _describe_api)
# All paths are fixed.
_TABLE: dict[tuple[str, str], Endpoint] = {
    (endpoint.method, endpoint.path): endpoint for endpoint in (*ENDPOINTS, _DESCRIPTION)
}


def _find_endpoint(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request; HEAD is answered as GET is, and the server drops its body."""
    return _TABLE.get(("GET" if method == "HEAD" else method, path.rstrip("/") or "/"))


def _refuse_path(method: str, path: str) -> Response:
    """Refuse a path that is unknown, or that takes another method."""
    others = [other for other in ("GET", "POST") if _find_endpoint(other, path)]
    if not others:
        error = RequestError(404, "unknown_path", "there is no such path; /openapi.json describes those that there are")
        return _answer_error(error, method, path)
    taken = ", ".join(others)
    error = RequestError(405, "method_not_allowed", f"this path takes {taken}, found {method[:16]}")
    response = _answer_error(error, method, path)
    response.headers["allow"] = taken
    return response


def _answer_error(error: Exception, method: str, path: str) -> Response:
    """Return an error as the clients of a path read it; with a method that it does not take, it keeps its shape."""
    found = (_find_endpoint(one, path) for one in (method, "POST", "GET"))
    shape: ErrorShape = ollama_error if path.startswith("/api/") else openai_error
    shape = next((endpoint.error for endpoint in found if endpoint), shape)
    problem = describe(error)
    return json_response(shape(problem), problem.status, problem.headers)


async def _unless_disconnected(receive: Receive, answer: Awaitable[Response]) -> Response:
    """Wait for an answer, and cancel its work if the client leaves before.

    Raises:
        ClientDisconnect: it did.
    """
    work = asyncio.current_task()
    assert work is not None
    loop = asyncio.get_running_loop()
    watch: asyncio.Task[None] | None = None
    is_answering, has_left = True, False

    def begin_watching() -> None:
        nonlocal watch
        watch = loop.create_task(_disconnected(receive))
        watch.add_done_callback(note_leaving)

    def note_leaving(watch: asyncio.Future[None]) -> None:
        nonlocal has_left
        if is_answering and not watch.cancelled():
            has_left = True
            work.cancel()

    timer = loop.call_later(_WATCHED_AFTER_S, begin_watching)
    try:
        return await answer
    except asyncio.CancelledError:
        if has_left:
            raise ClientDisconnect from None
        raise
    finally:
        is_answering = False
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
