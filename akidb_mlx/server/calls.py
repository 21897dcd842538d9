"""The calls that every protocol makes: limits, the choice of the model, and the call itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from math import exp
from time import time
from typing import TYPE_CHECKING

from akidb_mlx.checkpoint.tokenizer import Token
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import EmbedOptions, OverflowPolicy
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.facades import Facades
from akidb_mlx.server.metrics import ServerMetrics
from akidb_mlx.server.models import Models
from akidb_mlx.server.problems import RequestError
from akidb_mlx.texts import expected_tokens

if TYPE_CHECKING:
    from akidb_mlx.reranking import Reranker, ScoreBatch
    from akidb_mlx.vectors import EmbeddingBatch

# The activation of a model whose scores are logits.
_NONE = "Identity"


@dataclass
class ServerState:
    """All that handlers of requests share.

    Attributes:
        config: the configuration.
        models: the models.
        metrics: the counters.
        facades: entities and summaries.
        started: when the server began, in seconds since 1970.
    """

    config: ServerConfig
    models: Models
    metrics: ServerMetrics
    facades: Facades
    started: float = field(default_factory=time)


async def embed(
    state: ServerState,
    model: str | None,
    texts: Sequence[str],
    options: EmbedOptions,
    *,
    field_name: str,
    keep_alive_s: float | None = None,
) -> EmbeddingBatch:
    """Embed the texts of a request.

    Args:
        state: the server's.
        model: the name that the client gave, or None for the default.
        texts: the texts.
        options: those of the call.
        field_name: the name that the texts have in the request, for errors.
        keep_alive_s: see `Models.use`.

    Raises:
        RequestError: a limit is exceeded, or there is no such model.
        AkidbMlxError: as `Embedder.embed_detailed` raises.
    """
    name = state.models.choose(model, "embedder")
    check_limits(state.config, field_name, texts)
    timed: EmbedOptions = {**options, "timeout": state.config.timeout_s}
    characters = sum(map(len, texts))
    batch: EmbeddingBatch = await state.models.call(
        name, lambda service: service.submit(texts, **timed), characters, keep_alive_s
    )
    state.metrics.count_texts("embed", name, batch.token_counts, batch.truncated)
    return batch


async def tokenize(
    state: ServerState, texts: Sequence[str], input_type: str | None, add_special: bool
) -> list[list[Token]]:
    """Return the tokens of texts by the default model.

    Raises:
        RequestError: a limit is exceeded, or there is no embedding model.
        AkidbMlxError: as `EmbeddingService.tokenize` raises.
    """
    name = state.models.choose(None, "embedder")
    check_limits(state.config, "inputs", texts)
    async with state.models.use(name) as service:
        if service.get_model_info()["device"] == "remote":
            raise RequestError(
                404, "model_not_found", f"{name} is another server's model, whose tokens are not known here"
            )
        work = partial(
            service.tokenize,
            texts,
            input_type=input_type,
            add_special_tokens=add_special,
            timeout=state.config.timeout_s,
        )
        tokens: list[list[Token]] = await asyncio.get_running_loop().run_in_executor(None, work)
        return tokens


async def rerank(
    state: ServerState,
    model: str | None,
    query: str,
    documents: Sequence[str],
    *,
    field_name: str,
    on_overflow: OverflowPolicy = "truncate",
    raw: bool = False,
) -> tuple[ScoreBatch, list[float]]:
    """Score the documents of a request.

    Returns:
        What the model gave, and the score of each document as clients expect it: from 0 to 1, by the sigmoid where the
        model's files ask for no activation; or with `raw`, before any activation.

    Raises:
        RequestError: a limit is exceeded, or there is no such reranker.
        AkidbMlxError: as `Reranker.score_detailed` raises.
    """
    name = state.models.choose(model, "reranker")
    check_limits(state.config, field_name, documents, query)
    pairs = [(query, document) for document in documents]
    activation = ""

    def submit(reranker: Reranker) -> Future[ScoreBatch]:
        nonlocal activation
        reranker.check_orders()
        activation = reranker.get_model_info()["activation"]
        if raw and activation != _NONE:
            raise InvalidInputError(f"raw scores are not to be had: this model's are those after {activation}")
        return reranker.submit(pairs, on_overflow=on_overflow, timeout=state.config.timeout_s)

    characters = sum(len(query) + len(document) for document in documents)
    batch: ScoreBatch = await state.models.call(name, submit, characters)
    state.metrics.count_texts("rerank", name, batch.token_counts, batch.truncated)
    scores: list[float] = batch.scores.tolist()
    return batch, [_sigmoid(score) for score in scores] if activation == _NONE and not raw else scores


def check_limits(config: ServerConfig, field_name: str, texts: Sequence[str], beside: str = "") -> None:
    """Refuse more texts or tokens than a request may have.

    Args:
        config: it has the limits.
        field_name: the name that the texts have in the request.
        texts: the texts.
        beside: a text that is read again with each of them.

    Raises:
        RequestError: a limit is exceeded; it is named, and so is the index of the text at which it was.
    """
    if len(texts) > config.max_items:
        raise RequestError(
            400,
            "too_many_items",
            f"{field_name} has {len(texts)} texts and a request may have {config.max_items}: {field_name}"
            f"[{config.max_items}] is one too many",
            field_name,
        )
    total = 0
    for index, text in enumerate(texts):
        total += expected_tokens([text], beside)
        if total > config.max_tokens:
            raise RequestError(
                400,
                "too_many_tokens",
                f"{field_name}[{index}] brings the request to about {total} tokens and it may have "
                f"{config.max_tokens}: send fewer texts at once",
                field_name,
            )


def _sigmoid(score: float) -> float:
    return 1 / (1 + exp(-score)) if score >= 0 else exp(score) / (1 + exp(score))
