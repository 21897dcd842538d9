"""Text Embeddings Inference: vectors, tokens, and what is served."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from starlette.responses import Response

from akidb_mlx import __version__
from akidb_mlx.server.body import Body, Inputs
from akidb_mlx.server.calls import ServerState, embed, tokenize
from akidb_mlx.server.endpoint import Endpoint, json_response, truncated_header
from akidb_mlx.server.problems import RequestError, tei_error


class EmbedBody(Body):
    """The body of POST /embed."""

    inputs: Inputs
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    prompt_name: str | None = None
    dimensions: int | None = None


class TokenizeBody(Body):
    """The body of POST /tokenize."""

    inputs: Inputs
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


async def create_embeddings(state: ServerState, body: EmbedBody) -> Response:
    """Embed the inputs; one that is too long is refused unless the client lets it be cut."""
    batch = await embed(
        state,
        None,
        body.inputs,
        {
            "normalize": body.normalize is not False,
            "on_overflow": "truncate" if body.truncate else "error",
            "input_type": body.prompt_name,
            "dimensions": body.dimensions,
        },
        field_name="inputs",
    )
    return json_response(batch.vectors, headers=truncated_header(batch.truncated))


async def list_tokens(state: ServerState, body: TokenizeBody) -> Response:
    """List the tokens of the inputs."""
    found = await tokenize(state, body.inputs, body.prompt_name, body.add_special_tokens is not False)
    return json_response([[asdict(token) for token in tokens] for tokens in found])


async def show_info(state: ServerState) -> Response:
    """Describe the default model and the limits."""
    config, models = state.config, state.models
    names = [*config.embedders, *config.all_rerankers]
    if not names:
        raise RequestError(404, "model_not_found", "no embedding model and no reranker is served here")
    info: dict[str, Any]
    async with models.use(names[0]) as model:
        info = model.get_model_info()
    if models.kinds[names[0]] == "embedder":
        kind: dict[str, Any] = {"embedding": {"pooling": info["pooling"]}}
    else:
        labels = {str(number): label for number, label in enumerate(info["labels"])}
        kind = {"reranker": {"id2label": labels, "label2id": {label: int(key) for key, label in labels.items()}}}
    return json_response(
        {
            "model_id": names[0],
            "model_sha": info["revision"],
            "model_dtype": info["precision"],
            "model_type": kind,
            "max_concurrent_requests": config.max_requests,
            "max_input_length": info["max_tokens"],
            "max_batch_tokens": config.max_tokens,
            "max_client_batch_size": config.max_items,
            "auto_truncate": False,
            "tokenization_workers": config.tokenizer_threads,
            "version": __version__,
        }
    )


async def show_health(state: ServerState) -> Response:
    """Say whether requests can be answered."""
    is_ready, reason = await state.models.readiness()
    if not is_ready:
        raise RequestError(503, "unavailable", reason)
    return Response()


ENDPOINTS = (
    Endpoint("POST", "/embed", "Embed texts.", tei_error, create_embeddings, (EmbedBody,)),
    Endpoint("POST", "/", "Embed texts, as /embed does.", tei_error, create_embeddings, (EmbedBody,)),
    Endpoint("POST", "/tokenize", "List the tokens of texts.", tei_error, list_tokens, (TokenizeBody,)),
    Endpoint("GET", "/info", "Describe the default model and the limits.", tei_error, show_info),
    Endpoint("GET", "/health", "Say whether requests can be answered.", tei_error, show_health, is_open=True),
)
