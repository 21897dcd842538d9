"""The embeddings endpoint of one API, asked with the official client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import cache
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.errors import ConfigurationError, InferenceError, RemoteServiceError
from akidb_mlx.remote.access import Access
from akidb_mlx.remote.answers import Answer, parse_answer
from akidb_mlx.remote.failures import Failure, status_failure

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# An API that wants a caller to wait for longer than this is not waited for.
_LONGEST_RETRY_AFTER_S = 60.0


class EmbeddingsApi:
    """Asks an API for vectors, a bounded number of requests at once, and again where an attempt fails.

    Attributes:
        address: the base URL.
        max_concurrent: most requests that run at once.
        answered_by: the model's name as the API gave it first; every answer must have it.
        last_failure: the message of the latest attempt, if it failed.
    """

    def __init__(
        self,
        access: Access,
        model: str,
        metrics: Metrics,
        *,
        max_concurrent: int,
        max_retries: int,
        request_timeout_s: float,
    ) -> None:
        """Create the client; nothing is sent.

        Raises:
            ConfigurationError: the extra `openai` is not installed.
        """
        self.address = access.base_url
        self.max_concurrent = max_concurrent
        self.answered_by: str | None = None
        self.last_failure: str | None = None
        self._access = access
        self._model = model
        self._metrics = metrics
        self._max_retries = max_retries
        self._request_timeout_s = request_timeout_s
        self._slots = asyncio.Semaphore(max_concurrent)
        self._client = _open_client(access, request_timeout_s)

    async def ask(
        self, texts: Sequence[str], fields: Mapping[str, Any], dimension: int | None, deadline: Deadline
    ) -> Answer:
        """Return the answer to one request; an attempt that failed gives its place up while it waits for the next.

        Args:
            texts: one or more.
            fields: further fields of the request.
            dimension: how many values each vector must have; None for the first request, which finds out.
            deadline: no attempt begins that could not end before it.

        Raises:
            AkidbMlxError: the last attempt failed, another would fail likewise, or would come too late.
        """
        attempt = 0
        while True:
            asked = time.monotonic()
            async with self._slots:
                deadline.check()
                began = time.monotonic()
                self._metrics.observe("wait", began - asked)
                outcome = await self._attempt(texts, fields)
                self._metrics.observe("compute", time.monotonic() - began)
            self._metrics.count({"batches": 1})
            if isinstance(outcome, bytes):
                answer = self._check(parse_answer(outcome, len(texts), dimension))
                self.last_failure = None
                return answer
            self.last_failure = str(outcome.error)
            wait, left = outcome.wait_s(attempt), deadline.left()
            late = wait > _LONGEST_RETRY_AFTER_S or (left is not None and wait >= left)
            if not outcome.retryable or attempt >= self._max_retries or late:
                raise outcome.error
            await asyncio.sleep(wait)
            attempt += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _attempt(self, texts: Sequence[str], fields: Mapping[str, Any]) -> bytes | Failure:
        """Send one request, and return the body of its answer.

        The client's own errors hold the request with its key, so that none of them becomes the cause of ours.
        """
        import openai

        headers: dict[str, Any] = {} if self._access.key else {"Authorization": openai.Omit()}
        try:
            response = await asyncio.wait_for(
                self._client.embeddings.with_raw_response.create(
                    model=self._model,
                    input=list(texts),
                    encoding_format="base64",
                    extra_headers=headers,
                    extra_body=dict(fields),
                ),
                self._request_timeout_s,
            )
        except (asyncio.TimeoutError, openai.APITimeoutError):
            message = f"{self.address} did not answer within {self._request_timeout_s:g} s"
        except openai.APIStatusError as error:
            return status_failure(
                error.status_code,
                error.response.headers,
                self._access.clean(_own_message(error.body) or error.message),
                error.code,
                self.address,
                self._model,
            )
        except openai.OpenAIError as error:
            cause = error.__cause__ or error
            message = f"{self.address} cannot be reached: {type(cause).__name__}: {self._access.clean(cause)}"
        else:
            return response.http_response.content
        return Failure(RemoteServiceError(message), retryable=True)

    def _check(self, answer: Answer) -> Answer:
        """Refuse an answer of another model than that of the first one, whose vectors are not comparable."""
        if self.answered_by is None:
            self.answered_by = answer.model
        elif answer.model != self.answered_by:
            raise InferenceError(
                f"{self.address} answered with the model {self._access.clean(answer.model)!r}, and before with "
                f"{self._access.clean(self.answered_by)!r}: their vectors cannot be compared; name a model that stays "
                "the same"
            )
        return answer


def _open_client(access: Access, timeout_s: float) -> AsyncOpenAI:
    try:
        import openai
    except ImportError as error:
        raise ConfigurationError(
            f"models of an OpenAI-compatible API need {error.name}, which is not installed: run "
            "`pip install 'akidb-mlx[openai]'`"
        ) from error
    return openai.AsyncOpenAI(
        # The client insists on one; without a key, `_attempt` leaves the header out.
        api_key=access.key or "none",
        base_url=access.base_url,
        max_retries=0,
        timeout=timeout_s,
        # A redirect would take the texts elsewhere.
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, verify=_certificates()),
    )


@cache
def _certificates() -> SSLContext:
    """Return the certificates that servers are checked by; reading them takes a third of a second."""
    import httpx2

    return httpx2.create_ssl_context()


def _own_message(body: object) -> str | None:
    """Return the message in the body of an error, whose `error` the client has taken out already, if there is one."""
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return None
    messages = (body.get(name) for name in ("message", "error", "detail"))
    return next((message for message in messages if isinstance(message, str)), None)
