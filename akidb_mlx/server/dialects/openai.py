"""OpenAI's embeddings and list of models, with what this server adds."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from starlette.responses import Response

from akidb_mlx.options import EmbedOptions, OutputDtype, OverflowPolicy
from akidb_mlx.quantized import OutputVectors
from akidb_mlx.server.body import Body, Input
from akidb_mlx.server.calls import ServerState, embed
from akidb_mlx.server.endpoint import Endpoint, json_response
from akidb_mlx.server.problems import openai_error


class EmbeddingsBody(Body):
    """The body of POST /v1/embeddings."""

    harmless: ClassVar[Mapping[str, str]] = {"user": "an identifier of the caller's user, for OpenAI's own supervision"}

    model: str
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    input_type: str | None = None
    prompt: str | None = None
    on_overflow: OverflowPolicy | None = None
    output_dtype: Literal["float", "float32", "int8", "uint8", "binary", "ubinary"] | None = None
    ranges: list[list[float]] | None = None


async def create_embeddings(state: ServerState, body: EmbeddingsBody) -> Response:
    """Embed the input."""
    dtype = "float32" if body.output_dtype in (None, "float") else body.output_dtype
    options: EmbedOptions = {
        "input_type": body.input_type,
        "prompt": body.prompt,
        "dimensions": body.dimensions,
        "on_overflow": body.on_overflow or "truncate",
        "output_dtype": cast("OutputDtype", dtype),
        "ranges": body.ranges,
    }
    batch = await embed(state, body.model, body.input, options, field_name="input")
    total = sum(batch.token_counts)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector,
            "akidb": {"truncated": truncated, "tokens": tokens},
        }
        for index, (vector, truncated, tokens) in enumerate(
            zip(_encode(batch.vectors, body.encoding_format), batch.truncated, batch.token_counts, strict=True)
        )
    ]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})


def _encode(vectors: OutputVectors, encoding: str | None) -> list[Any]:
    if encoding != "base64":
        return list(vectors)
    return [b64encode(row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()).decode() for row in vectors]


async def list_models(state: ServerState) -> Response:
    """List the models that may be asked for."""
    data = [
        {
            "id": name,
            "object": "model",
            "created": int(state.started),
            "owned_by": "akidb-mlx",
            "akidb": {"kind": kind, "loaded": name in state.models.latest()},
        }
        for name, kind in state.models.kinds.items()
    ]
    return json_response({"object": "list", "data": data})


ENDPOINTS = (
    Endpoint("POST", "/v1/embeddings", "Embed texts.", openai_error, create_embeddings, (EmbeddingsBody,)),
    Endpoint("GET", "/v1/models", "List the models.", openai_error, list_models),
)
