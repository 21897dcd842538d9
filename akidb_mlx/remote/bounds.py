"""A bound on the bytes of an API's answers, errors included, which are read into memory whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from akidb_mlx.errors import InferenceError

if TYPE_CHECKING:
    import httpx2

# The bytes of an answer beside its vectors or its text, and of an error.
ENVELOPE_BYTES = 1 << 16
# The most bytes of the answer to the request that the current task sends.
most_bytes: ContextVar[int] = ContextVar("most_bytes", default=ENVELOPE_BYTES)


class UnboundedAnswerError(InferenceError):
    """An answer is larger than any right one, or packed so that its size is not known."""


async def bound_answer(response: httpx2.Response) -> None:
    """Let the body of a response fail once it has more bytes than `most_bytes`; a hook of the client.

    Raises:
        UnboundedAnswerError: the body is compressed although the request asks for plain ones: a few bytes could hold
            any amount.
    """
    import httpx2

    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnboundedAnswerError(f"the API's answer is compressed ({encoding[:20]!r}), which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _bounded_stream(response.stream, most_bytes.get())


def _bounded_stream(stream: httpx2.AsyncByteStream, limit: int) -> httpx2.AsyncByteStream:
    import httpx2

    class BoundedStream(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = limit
            async for part in stream:
                left -= len(part)
                if left < 0:
                    raise UnboundedAnswerError(f"the API's answer has more than {limit} bytes, which no right one has")
                yield part

        async def aclose(self) -> None:
            await stream.aclose()

    return BoundedStream()
