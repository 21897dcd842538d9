"""The routes for those who run the server: its health and its metrics."""

from __future__ import annotations

from starlette.responses import Response

from akidb_mlx.server.calls import ServerState
from akidb_mlx.server.endpoint import Endpoint, json_response
from akidb_mlx.server.problems import openai_error


async def live(state: ServerState) -> Response:
    """Say that the process answers."""
    return json_response({"status": "ok", "models": len(state.models.kinds)})


async def ready(state: ServerState) -> Response:
    """Say whether requests can be answered."""
    is_ready, reason = await state.models.readiness()
    headers = {} if is_ready else {"retry-after": "1"}
    return json_response(
        {"status": "ok" if is_ready else "unavailable", "reason": reason}, 200 if is_ready else 503, headers
    )


async def metrics(state: ServerState) -> Response:
    """Write the metrics in Prometheus' format."""
    from akidb_mlx.server.exposition import render

    return Response(render(state.metrics, state.models.latest()), media_type="text/plain; version=0.0.4; charset=utf-8")


ENDPOINTS = (
    Endpoint("GET", "/health/live", "Say that the process answers.", openai_error, live, is_open=True),
    Endpoint("GET", "/health/ready", "Say whether requests can be answered.", openai_error, ready, is_open=True),
    Endpoint("GET", "/metrics", "Report the metrics in Prometheus' format.", openai_error, metrics),
)
