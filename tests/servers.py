"""A server of tiny models that runs in this process, on a port of its own, and clients for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from akidb_mlx.reranking import Reranker
from akidb_mlx.server.app import create_app
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.serving import create_server, listen
from akidb_mlx.service import EmbeddingService
from tests.support import GOLDENS


def load_tiny(kind: str, name: str) -> Any:
    """Load a model of the goldens by the name of its directory."""
    return (Reranker if kind == "reranker" else EmbeddingService)(GOLDENS / name, device="cpu")


@contextmanager
def running_server(load: Any = load_tiny, **config: Any) -> Iterator[httpx2.Client]:
    """Run a server, and yield a client that is connected to it."""
    chosen = ServerConfig(**{"models": ["tiny-bert"], "port": 0, "shutdown_timeout_s": 2, **config})
    addresses: list[str] = []
    listening = threading.Event()

    def note(address: str) -> None:
        addresses.append(address)
        listening.set()

    server = create_server(chosen, create_app(chosen, load), note)
    socket = listen(chosen.host, chosen.port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        assert listening.wait(60)
        with httpx2.Client(base_url=addresses[0], timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        socket.close()
        assert not thread.is_alive()
