"""The description of the routes at /openapi.json, made of the records that they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from akidb_mlx import __version__
from akidb_mlx.server.body import Body
from akidb_mlx.server.endpoint import Endpoint
from akidb_mlx.server.problems import Problem

_REASONS = {
    400: "The request is not usable; the message says why.",
    401: "A key is needed.",
    403: "The Host header names another machine.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "Too much is being asked; retry after the seconds of Retry-After.",
    500: "The computation failed.",
    502: "The API that computes a model openai:NAME cannot be reached, or failed.",
    503: "The model is loading, restarting or not usable, or time is over; retry where there is Retry-After.",
}


def openapi_document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document of some routes."""
    listed = list(endpoints)
    bodies = list(dict.fromkeys(body for endpoint in listed for body in endpoint.bodies))
    names = {body: _name(body) for body in bodies}
    schemas: dict[str, Any] = {names[body]: body.model_json_schema() for body in bodies}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "akidb-mlx", "version": __version__, "summary": "Local text embeddings on MLX."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(endpoint: Endpoint, names: dict[type[Body], str]) -> dict[str, Any]:
    statuses = [403, 500, 503]
    if not endpoint.is_open:
        statuses.append(401)
    if endpoint.bodies:
        statuses += [400, 404, 408, 413, 429, 502]
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()} {endpoint.path}",
        "security": [] if endpoint.is_open else [{"key": []}, {}],
        "responses": {
            "200": {"description": "The answer."},
            **{str(status): _failure(endpoint, status) for status in sorted(statuses)},
        },
    }
    if endpoint.bodies:
        refs = [{"$ref": f"#/components/schemas/{names[body]}"} for body in endpoint.bodies]
        schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _failure(endpoint: Endpoint, status: int) -> dict[str, Any]:
    """Describe an error, with an example in the shape of the route's protocol."""
    example = endpoint.error(Problem(status, "code", "the reason"))
    return {"description": _REASONS[status], "content": {"application/json": {"example": example}}}


def _name(body: type[Body]) -> str:
    """Return a name for a body that no other has: several protocols have an EmbedBody."""
    return f"{body.__module__.rpartition('.')[2].capitalize()}{body.__name__}"
