"""The page at `/`, which shows the server's work live, and the report that it asks for."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib.resources import files
from time import time
from typing import Any

from starlette.responses import Response

from akidb_mlx import __version__
from akidb_mlx.server.calls import ServerState
from akidb_mlx.server.endpoint import Endpoint, json_response
from akidb_mlx.server.problems import openai_error


async def show_page(_: ServerState) -> Response:
    """Return the page, which holds all that it needs."""
    content, policy = _read_page()
    return Response(content, media_type="text/html; charset=utf-8", headers={"content-security-policy": policy})


@cache
def _read_page() -> tuple[bytes, str]:
    """Return the page, and the policy that allows its own script and style and requests to this server only."""
    content = (files(__package__) / "page.html").read_bytes()
    hashes = {}
    for name in (b"script", b"style"):
        found = re.search(rb"<%s>(.*?)</%s>" % (name, name), content, re.DOTALL)
        assert found is not None
        hashes[name] = b64encode(hashlib.sha256(found[1]).digest()).decode()
    # The shades of the similarities are set by the script, which needs no allowance.
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes[b'script']}'; style-src 'sha256-{hashes[b'style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy


async def report_status(state: ServerState) -> Response:
    """Report the models, and the work of all of them together."""
    loaded = state.models.latest()
    metrics = {name: model.get_metrics() for name, model in loaded.items()}
    is_ready, reason = state.models.last_readiness()
    latencies = [found["latency_s"]["call"] for found in metrics.values()]
    return json_response(
        {
            "version": __version__,
            "ready": is_ready,
            "reason": reason,
            "uptime_s": time() - state.started,
            "requests_running": state.metrics.running,
            "models": [
                {"name": name, "kind": kind, **_describe(loaded.get(name), metrics.get(name))}
                for name, kind in state.models.kinds.items()
            ],
            "totals": {
                "texts": sum(found["texts"] for found in metrics.values()),
                "tokens": sum(found["tokens"] for found in metrics.values()),
                "waiting_tokens": sum(found["queue"]["tokens"] for found in metrics.values()),
                # The device's allocator is that of the whole process.
                "memory_bytes": max((found["memory"]["active"] for found in metrics.values()), default=0),
                "latency": {name: sum(one[name] for one in latencies) for name in ("count", "sum")},
            },
        }
    )


def _describe(model: Any, metrics: Any) -> dict[str, Any]:
    """Return a model's state and work."""
    if model is None:
        return {"state": "not loaded"}
    info = model.get_model_info()
    return {
        "state": info["status"],
        "device": info["device"],
        "precision": info["precision"],
        "weight_bytes": info["weight_bytes"],
        "waiting": metrics["queue"]["requests"],
        "texts": metrics["texts"],
        "truncated": metrics["truncated_texts"],
        "refused": metrics["calls"]["refused"],
    }


ENDPOINTS = (
    Endpoint("GET", "/", "Show the server's work on a page.", openai_error, show_page, is_open=True),
    Endpoint("GET", "/v1/status", "Report the models and their work.", openai_error, report_status),
)
