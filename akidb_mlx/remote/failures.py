"""The failures of requests to an API: which error each one is, and when it is worth another attempt."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from akidb_mlx.errors import (
    AkidbMlxError,
    ConfigurationError,
    InvalidInputError,
    ModelNotFoundError,
    RemoteServiceError,
    ServiceOverloadedError,
)

# Seconds before the second attempt, and most seconds before a later one, where the API names none.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
# Where an API that is overloaded names no time.
_DEFAULT_RETRY_S = 1.0
# Answers below 500 after which another attempt may succeed: timeout, conflict, too early, too many requests.
_RETRYABLE = frozenset({408, 409, 425, 429})
# Answers from 500 on that will be the same again: not implemented, version of HTTP not supported.
_PERMANENT = frozenset({501, 505})
_OVERLOADED = frozenset({429, 529})
# Words for the exhausted budget of an account, which no waiting restores.
_NO_BUDGET = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


@dataclass(frozen=True)
class Failure:
    """A request that failed.

    Attributes:
        error: the error that the caller gets if there is no other attempt.
        retryable: whether another attempt may succeed.
        retry_after_s: seconds after which the API wants it; None where it does not say.
    """

    error: AkidbMlxError
    retryable: bool
    retry_after_s: float | None = None

    def wait_s(self, attempt: int) -> float:
        """Return the seconds to wait after attempt `attempt`, counted from 0: the API's, or doubling ones."""
        if self.retry_after_s is not None:
            return self.retry_after_s
        # Spread, so that callers that failed together do not come back together.
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1)


def status_failure(
    status: int, headers: Mapping[str, str], message: str, code: str | None, address: str, model: str
) -> Failure:
    """Return the failure that an HTTP status stands for.

    Args:
        status: from 300 on.
        headers: of the response.
        message: the API's own, without secrets.
        code: the API's word for it.
        address: the base URL.
        model: the model's name.
    """
    found = f"({status}: {message})"
    if status < 400:
        return Failure(
            ConfigurationError(f"{address} redirects {found}; give the address that it leads to as base_url"), False
        )
    if status in (401, 403):
        return Failure(
            ConfigurationError(f"{address} refuses the key {found}; set OPENAI_API_KEY or give api_key"), False
        )
    if status == 404:
        return Failure(
            ModelNotFoundError(f"{address} has no model {model!r} {found}; check the name, and base_url"), False
        )
    if status in (400, 413, 422):
        return Failure(InvalidInputError(f"{address} refuses the request {found}"), False)
    wait = parse_retry_after(headers)
    if status == 429 and code in _NO_BUDGET:
        return Failure(RemoteServiceError(f"the account at {address} has no budget left {found}"), False)
    if status in _OVERLOADED:
        overloaded = ServiceOverloadedError(
            f"{address} takes no more requests now {found}; retry later or send fewer at once",
            _DEFAULT_RETRY_S if wait is None else wait,
        )
        return Failure(overloaded, True, wait)
    retryable = status in _RETRYABLE or (status >= 500 and status not in _PERMANENT)
    return Failure(RemoteServiceError(f"{address} failed {found}; look at the API's own log or retry"), retryable, wait)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, as a number or a date; None where it says nothing usable."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
