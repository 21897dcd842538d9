"""Runs the application on uvicorn, which was chosen over granian: as fast here, and it runs inside this process."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from math import ceil
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.server.config import ServerConfig

# Most bytes of a request's head.
_MAX_HEAD_BYTES = 1 << 16
# Connections that may wait to be accepted.
_BACKLOG = 2048
# Files, connections among them, that the process may open; macOS allows no more unless it is told to.
_OPEN_FILES = 10_240
# Seconds that an idle connection stays open after an answer.
_KEEP_ALIVE_S = 75


def create_server(config: ServerConfig, app: ASGIApp, started: Callable[[str], None]) -> uvicorn.Server:
    """Return a server whose `run(sockets=[…])` answers requests until SIGTERM or Ctrl-C.

    Requests that run then have a while to finish.

    Args:
        config: the server's configuration.
        app: the application.
        started: called with the server's address once it listens.
    """
    return _Server(
        uvicorn.Config(
            app,
            http=bounded_protocol(config.body_timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=ceil(config.shutdown_timeout_s),
        ),
        started,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        ConfigurationError: there is no such address, or somebody else listens there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"{host} port {port} cannot be listened on: {error.strerror or error}; choose another --host or --port"
        ) from error


def allow_many_connections() -> None:
    """Raise this process's limit on open files, which is 256 on macOS, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Server(uvicorn.Server):
    """A server that says where it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._report = started

    async def startup(self, sockets: Any = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._report(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def bounded_protocol(timeout_s: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with bounds on a request's head, which it has none for.

    Args:
        timeout_s: seconds in which a head must come.
    """

    class BoundedProtocol(HttpToolsProtocol):
        """Closes a connection whose next head comes too slowly or is too long."""

        _timer: asyncio.TimerHandle | None = None
        _is_in_head = True
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_head()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            # A head that came whole needs no bound: it was small enough to be parsed at once.
            if self._is_in_head:
                self._await_head()
                if self._head_bytes > _MAX_HEAD_BYTES:
                    self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._is_in_head = True

        def on_headers_complete(self) -> None:
            self._end_head()
            super().on_headers_complete()

        def _await_head(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(timeout_s, self.transport.close)

        def _end_head(self) -> None:
            self._is_in_head = False
            self._head_bytes = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol
