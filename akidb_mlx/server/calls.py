"""What every protocol asks for, in one form: the limits, the choice of the model, and the call."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any

from akidb_mlx.options import EmbedOptions
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.metrics import ServerMetrics
from akidb_mlx.server.models import Models
from akidb_mlx.server.problems import RequestError
from akidb_mlx.texts import expected_tokens

if TYPE_CHECKING:
    from akidb_mlx.reranking import ScoreBatch
    from akidb_mlx.vectors import EmbeddingBatch


@dataclass
class ServerState:
    """All that handlers of requests share.

    Attributes:
        config: the configuration.
        models: the models.
        metrics: the counters.
        started: when the server began, in seconds since 1970.
    """

    config: ServerConfig
    models: Models
    metrics: ServerMetrics
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
    batch: EmbeddingBatch = await state.models.call(name, lambda service: service.submit(texts, **timed), keep_alive_s)
    state.metrics.count_texts("embed", name, batch.token_counts, batch.truncated)
    return batch


async def rerank(
    state: ServerState, model: str | None, query: str, documents: Sequence[str], *, field_name: str, **options: Any
) -> tuple[ScoreBatch, list[float]]:
    """Score the documents of a request.

    Returns:
        The scores as the model gives them, and from 0 to 1 as clients expect them.
    """
    name = state.models.choose(model, "reranker")
    check_limits(state.config, field_name, documents, query)
    pairs = [(query, document) for document in documents]
    timed = {**options, "timeout": state.config.timeout_s}

    async with state.models.use(name) as reranker:
        reranker.check_orders()
        is_logit = reranker.get_model_info()["activation"] == "Identity"
    batch: ScoreBatch = await state.models.call(name, lambda reranker: reranker.submit(pairs, **timed))
    state.metrics.count_texts("rerank", name, batch.token_counts, batch.truncated)
    scores: list[float] = batch.scores.tolist()
    return batch, [_sigmoid(score) for score in scores] if is_logit else scores


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
    from math import exp

    return 1 / (1 + exp(-score)) if score >= 0 else exp(score) / (1 + exp(score))
