"""An API that is asked with the official client: a bounded number of requests at once, and again after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache
from numbers import Real
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.errors import AkidbMlxError, ConfigurationError, InvalidInputError, RemoteServiceError
from akidb_mlx.options import is_number
from akidb_mlx.remote.access import Access
from akidb_mlx.remote.bounds import bound_answer, most_bytes
from akidb_mlx.remote.failures import Failure, status_failure

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_Answer = TypeVar("_Answer")

# An API that wants a caller to wait for longer than this is not waited for.
_LONGEST_RETRY_AFTER_S = 60.0


class Api:
    """The way in which all requests to one API are sent.

    Attributes:
        address: the base URL.
        is_openai: whether it is OpenAI's own.
        max_concurrent: most requests that run at once.
        request_timeout_s: seconds after which an attempt without an answer has failed.
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
            InvalidInputError: a number is not usable.
            ConfigurationError: the extra `openai` is not installed.
        """
        for name, value, least in (("max_concurrent", max_concurrent, 1), ("max_retries", max_retries, 0)):
            if not is_number(value, int) or value < least:
                raise InvalidInputError(f"{name} must be an integer of {least} or more, found {value!r}")
        if not is_number(request_timeout_s, Real) or not 0 < request_timeout_s < float("inf"):
            raise InvalidInputError(
                f"request_timeout_s must be a number of seconds above 0, found {request_timeout_s!r}"
            )
        self.address = access.base_url
        self.is_openai = access.is_openai
        self.max_concurrent = max_concurrent
        self.request_timeout_s = float(request_timeout_s)
        self.last_failure: str | None = None
        self._access = access
        self._model = model
        self._metrics = metrics
        self._max_retries = max_retries
        self._slots = asyncio.Semaphore(max_concurrent)
        self._client = _open_client(access, self.request_timeout_s)

    async def ask(
        self,
        send: Callable[[AsyncOpenAI], Awaitable[_Answer]],
        limit: int,
        deadline: Deadline,
        may_retry: Callable[[], bool] = lambda: True,
    ) -> _Answer:
        """Return the answer to a request; an attempt that failed gives its place up while it waits for the next.

        Args:
            send: sends the request with the client, and reads the answer; raises `asyncio.TimeoutError` where it waited
                for `request_timeout_s`, and `RemoteServiceError` for a failure that another attempt may not have.
            limit: most bytes of the answer.
            deadline: no attempt begins that could not end before it.
            may_retry: returns whether the request may be sent again after an attempt that failed.

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
                outcome = await self._attempt(send, limit)
                self._metrics.observe("compute", time.monotonic() - began)
            self._metrics.count({"batches": 1})
            if not isinstance(outcome, Failure):
                return outcome
            self.last_failure = str(outcome.error)
            wait, left = outcome.wait_s(attempt), deadline.left()
            late = wait > _LONGEST_RETRY_AFTER_S or (left is not None and wait >= left)
            if not outcome.retryable or attempt >= self._max_retries or late or not may_retry():
                raise outcome.error
            await asyncio.sleep(wait)
            attempt += 1

    @property
    def headers(self) -> dict[str, Any]:
        """Return the headers that a request needs beside the client's own."""
        import openai

        return {} if self._access.key else {"Authorization": openai.Omit()}

    def clean(self, message: object) -> str:
        """Return a message of the API on one line, cut, and without the key."""
        return self._access.clean(message)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _attempt(self, send: Callable[[AsyncOpenAI], Awaitable[_Answer]], limit: int) -> _Answer | Failure:
        """Send a request once, and return its answer.

        The client's own errors hold the request with its key, so that none of them becomes the cause of ours.
        """
        import httpx2
        import openai

        most_bytes.set(limit)
        try:
            return await send(self._client)
        except (asyncio.TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
            message = f"{self.address} did not answer within {self.request_timeout_s:g} s"
        except openai.APIStatusError as error:
            return status_failure(
                error.status_code,
                error.response.headers,
                self.clean(_own_message(error.body) or error.message),
                error.code,
                self.address,
                self._model,
            )
        except RemoteServiceError as error:
            return Failure(error, retryable=True)
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, AkidbMlxError):  # of the hook of ours
                return Failure(cause, retryable=False)
            message = f"{self.address} cannot be reached: {type(cause).__name__}: {self.clean(cause)}"
        return Failure(RemoteServiceError(message), retryable=True)


def _open_client(access: Access, timeout_s: float) -> AsyncOpenAI:
    try:
        import openai
    except ImportError as error:
        raise ConfigurationError(
            f"models of an OpenAI-compatible API need {error.name}, which is not installed: run "
            "`pip install 'akidb-mlx[openai]'`"
        ) from error
    return openai.AsyncOpenAI(
        # The client insists on one; without a key, `Api.headers` leave it out.
        api_key=access.key or "none",
        base_url=access.base_url,
        max_retries=0,
        timeout=timeout_s,
        default_headers={"Accept-Encoding": "identity"},  # for the sake of `bound_answer`
        # A redirect would take the texts elsewhere.
        http_client=openai.DefaultAsyncHttpxClient(
            follow_redirects=False, verify=_certificates(), event_hooks={"response": [bound_answer]}
        ),
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
