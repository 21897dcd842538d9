"""The one place where errors become answers: an HTTP status, and the JSON that each protocol's clients read."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from akidb_mlx.errors import (
    AkidbMlxError,
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    RemoteServiceError,
    ServiceClosedError,
    ServiceOverloadedError,
)

logger = logging.getLogger(__name__)

# Seconds after which a client should ask again where nothing better is known.
RETRY_S = 1.0


@dataclass(frozen=True)
class Problem:
    """An error as clients see it.

    Attributes:
        status: the HTTP status.
        code: a word for programs.
        message: a sentence for people.
        param: the field of the request that is at fault, or None.
        retry_after_s: seconds after which the same request may succeed, or None.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        headers = {} if self.retry_after_s is None else {"retry-after": str(max(1, ceil(self.retry_after_s)))}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


class RequestError(AkidbMlxError):
    """A request is refused; `problem` says how it is answered."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(status, code, message, param, RETRY_S if status in (429, 503) else None)


# The first class that an error is an instance of decides.
_STATUSES: tuple[tuple[type[AkidbMlxError], int, str], ...] = (
    (InvalidInputError, 400, "invalid_value"),
    (DeadlineExceededError, 503, "timeout"),
    (ServiceClosedError, 503, "unavailable"),
    (RemoteServiceError, 502, "remote_service_failed"),
    (ModelNotFoundError, 503, "model_unavailable"),
    (ModelLoadError, 503, "model_unavailable"),
    (ConfigurationError, 503, "model_unavailable"),
    (InferenceError, 500, "inference_failed"),
)


def describe(error: Exception) -> Problem:
    """Return an error as clients see it; one that is not of this package is logged, without what it holds."""
    if isinstance(error, RequestError):
        return error.problem
    if isinstance(error, ServiceOverloadedError):
        return Problem(429, "overloaded", str(error), None, error.retry_after_s)
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            retry = RETRY_S if kind in (DeadlineExceededError, ServiceClosedError) else None
            return Problem(status, code, str(error), None, retry)
    # Its message may quote a text.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a request failed: %s\n%s", type(error).__name__, frames)
    return Problem(500, "internal_error", f"the server failed: {type(error).__name__}")


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TEI_TYPES = {429: "Overloaded", 503: "Unhealthy", 500: "Backend", 502: "Backend"}


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return an error as OpenAI writes it."""
    kind = "server_error" if problem.status >= 500 else _OPENAI_TYPES.get(problem.status, "invalid_request_error")
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}}


def ollama_error(problem: Problem) -> dict[str, Any]:
    """Return an error as Ollama writes it."""
    return {"error": problem.message}


def tei_error(problem: Problem) -> dict[str, Any]:
    """Return an error as Text Embeddings Inference writes it."""
    return {"error": problem.message, "error_type": _TEI_TYPES.get(problem.status, "Validation")}


def rerank_error(problem: Problem) -> dict[str, Any]:
    """Return an error as Cohere (`message`) and Jina (`detail`) write it, and TEI, whose clients share a path."""
    return {"message": problem.message, "detail": problem.message, **tei_error(problem)}


ErrorShape = Callable[[Problem], dict[str, Any]]
