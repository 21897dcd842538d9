"""The ASGI application: routes, and what every request passes through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
from akidb_mlx.server.problems import ErrorShape, Problem, RequestError, describe, ollama_error, openai_error
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
_SHAPES: dict[tuple[str, str], ErrorShape] = {
    (endpoint.method, endpoint.path): endpoint.error for endpoint in ENDPOINTS
}
_OPEN = frozenset((endpoint.method, endpoint.path) for endpoint in ENDPOINTS if endpoint.is_open)
# Where the gate finds which route a request took.
_ROUTE = "akidb.route"


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
    state = ServerState(config, models, ServerMetrics(models.latest), Facades(config))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tokenizers = ThreadPoolExecutor(config.tokenizer_threads, "akidb-mlx-tokenizer")
        asyncio.get_running_loop().set_default_executor(tokenizers)
        models.start()
        try:
            yield
        finally:
            state.facades.close()
            await models.close()

    app = Starlette(
        routes=[
            *(Route(entry.path, _handler(entry, state), methods=[entry.method]) for entry in ENDPOINTS),
            Route("/openapi.json", _describe_api, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_http_error},
        lifespan=lifespan,
    )
    gated: ASGIApp = Gate(app, state, keys, HostCheck(config))
    if config.cors_origins:
        gated = CORSMiddleware(gated, config.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    return gated


class Gate:
    """Lets a request in by its host, its key and the number of those that run, and counts it."""

    def __init__(self, app: ASGIApp, state: ServerState, keys: ApiKeys | None, hosts: HostCheck) -> None:
        self._app = app
        self._state = state
        self._keys = keys
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass a message of the server's life on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._state.metrics.begin()
        try:
            try:
                self._admit(scope)
            except RequestError as error:
                await _answer_problem(error.problem, _shape(scope["method"], scope["path"]))(
                    scope, receive, observed_send
                )
            else:
                await self._app(scope, receive, observed_send)
        finally:
            self._state.metrics.end(scope.get(_ROUTE, "other"), status, time.monotonic() - began)

    def _admit(self, scope: Scope) -> None:
        most = self._state.config.max_requests
        if scope["method"] == "POST" and self._state.metrics.running > most:  # first, since it costs least
            raise RequestError(429, "overloaded", f"{most} requests are being answered: retry later")
        headers = Headers(scope=scope)
        self._hosts.check(headers)
        if self._keys is not None and (scope["method"], scope["path"]) not in _OPEN:
            self._keys.check(headers)


def _handler(endpoint: Endpoint, state: ServerState) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that answers requests of a route."""
    config = state.config

    async def handle(request: Request) -> Response:
        request.scope[_ROUTE] = endpoint.path
        try:
            if not endpoint.bodies:
                return await endpoint.answer(state)
            content = await read_body(request, config.max_body_bytes, config.body_timeout_s)
            body = endpoint.parse(parse_json(content))
            return await _unless_disconnected(request, endpoint.answer(state, body))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except asyncio.CancelledError:  # by the server, when the time of the requests that run is over
            return _answer_problem(describe(ServiceClosedError("the server is ending")), endpoint.error)
        except Exception as error:  # noqa: BLE001 - every error is described to the client
            return _answer_problem(describe(error), endpoint.error)

    return handle


async def _describe_api(_: Request) -> Response:
    """Return the description of all routes."""
    return json_response(openapi_document(ENDPOINTS))


async def _unless_disconnected(request: Request, answer: Awaitable[Response]) -> Response:
    """Wait for an answer, and cancel its work if the client leaves before.

    Raises:
        ClientDisconnect: it did.
    """
    work = asyncio.current_task()
    assert work is not None
    watch = asyncio.ensure_future(_disconnected(request.receive))
    is_answering, has_left = True, False

    def note_leaving(watch: asyncio.Future[None]) -> None:
        nonlocal has_left
        if is_answering and not watch.cancelled():
            has_left = True
            work.cancel()

    watch.add_done_callback(note_leaving)
    try:
        return await answer
    except asyncio.CancelledError:
        if has_left:
            raise ClientDisconnect from None
        raise
    finally:
        is_answering = False
        watch.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path, or a method that a path does not have."""
    assert isinstance(error, HTTPException)
    code = {404: "unknown_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    problem = Problem(error.status_code, code, f"{request.method[:16]} here: {error.detail}")
    response = _answer_problem(problem, _shape(request.method, request.url.path))
    response.headers.update(error.headers or {})
    return response


def _answer_problem(problem: Problem, shape: ErrorShape) -> Response:
    return json_response(shape(problem), problem.status, problem.headers)


def _shape(method: str, path: str) -> ErrorShape:
    shapes = (_SHAPES.get((one, path)) for one in (method, "POST", "GET"))  # a path with another method keeps its shape
    return next(filter(None, shapes), None) or (ollama_error if path.startswith("/api/") else openai_error)
