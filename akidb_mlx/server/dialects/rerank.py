"""Reranking as Cohere, Jina and TEI define it; they share paths, and the fields of a body tell whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, WithJsonSchema
from starlette.responses import Response

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.server.body import Body, list_strings
from akidb_mlx.server.calls import ServerState, rerank
from akidb_mlx.server.endpoint import Endpoint, json_response, truncated_header
from akidb_mlx.server.problems import RequestError, rerank_error


def _list_documents(value: Any) -> list[str]:
    """Return documents, which are strings or objects with a text, as strings."""
    if not isinstance(value, list):
        raise InvalidInputError("documents must be a list of strings, or of objects with a text")
    texts: list[Any] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            if set(item) != {"text"}:
                raise InvalidInputError(f"documents[{index}] must be a string, or an object with the one field text")
            item = item["text"]
        texts.append(item)
    return list_strings("documents", texts)


Documents = Annotated[
    list[str],
    BeforeValidator(_list_documents),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
                ]
            },
        }
    ),
]
Texts = Annotated[
    list[str],
    BeforeValidator(lambda value: list_strings("texts", value)),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1}),
]


class DocumentsBody(Body):
    """A body as Cohere and Jina define it."""

    harmless: ClassVar[Mapping[str, str]] = {
        "priority": "a place in Cohere's own queue",
        "client_name": "a name for Cohere's own statistics",
    }

    model: str | None = None
    query: str
    documents: Documents
    top_n: int | None = None
    return_documents: bool | None = None
    on_overflow: OverflowPolicy | None = None


class TextsBody(Body):
    """A body as TEI defines it."""

    query: str
    texts: Texts
    raw_scores: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None


def choose_body(fields: Mapping[str, Any]) -> type[Body]:
    """Return whose body it is."""
    return TextsBody if "texts" in fields else DocumentsBody


async def answer(state: ServerState, body: Body) -> Response:
    """Order the documents."""
    if isinstance(body, TextsBody):
        return await _answer_tei(state, body)
    assert isinstance(body, DocumentsBody)
    return await _answer_cohere(state, body)


async def _answer_cohere(state: ServerState, body: DocumentsBody) -> Response:
    if body.top_n is not None and body.top_n < 1:
        raise RequestError(400, "invalid_value", "top_n must be 1 or more", "top_n")
    batch, scores = await rerank(
        state,
        body.model,
        body.query,
        body.documents,
        field_name="documents",
        on_overflow=body.on_overflow or "truncate",
    )
    results: list[dict[str, Any]] = [
        {
            "index": index,
            "relevance_score": scores[index],
            "akidb": {"truncated": batch.truncated[index], "tokens": batch.token_counts[index]},
        }
        for index in _order(scores)[: body.top_n]
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]]}
    total = sum(batch.token_counts)
    return json_response(
        {
            "object": "list",
            "model": batch.model if body.model is None else body.model,
            "results": results,
            "usage": {"prompt_tokens": total, "total_tokens": total},
            "meta": {"billed_units": {"search_units": 0}},
        }
    )


async def _answer_tei(state: ServerState, body: TextsBody) -> Response:
    batch, scores = await rerank(
        state,
        None,
        body.query,
        body.texts,
        field_name="texts",
        on_overflow="truncate" if body.truncate else "error",
        raw=bool(body.raw_scores),
    )
    ranks = [
        {"index": index, "score": scores[index]} | ({"text": body.texts[index]} if body.return_text else {})
        for index in _order(scores)
    ]
    return json_response(ranks, headers=truncated_header(batch.truncated))


def _order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)


ENDPOINTS = tuple(
    Endpoint(
        "POST",
        path,
        "Order documents by how well they answer a query.",
        rerank_error,
        answer,
        (DocumentsBody, TextsBody),
        choose_body,
    )
    for path in ("/v1/rerank", "/v2/rerank", "/rerank")
)
