"""Embedder, the interface of everything that turns texts into vectors."""

from __future__ import annotations

import reprlib
from abc import abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Unpack

from akidb_mlx.closeable import Closeable
from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import DeadlineExceededError
from akidb_mlx.options import CallOptions, DimensionRange, EmbedOptions, parse_options, parse_timeout
from akidb_mlx.runtime.owner import check_may_wait

if TYPE_CHECKING:
    import asyncio

    from akidb_mlx.quantized import OutputVectors
    from akidb_mlx.reports import Health, ModelInfo, ServiceMetrics
    from akidb_mlx.vectors import EmbeddingBatch


_Result = TypeVar("_Result")


class Embedder(Closeable):
    """Turns texts into vectors; safe to call from any thread.

    An embedder implements `submit`, `get_model_info`, `get_metrics`, `health_check` and `close`. The other calls are
    built on those, and `parse_options` is there for `submit` to use.
    """

    # Whether `dimensions` may cut the vectors of a model that was not trained for it (Matryoshka).
    allow_untrained_dimensions = False

    @property
    def model_name(self) -> str:
        """Return the name that the model was asked for by."""
        return self.get_model_info()["model_name"]

    @property
    def dimension(self) -> int:
        """Return how many values a vector has unless a call says otherwise."""
        return self.get_model_info()["dimension"]

    @property
    def max_tokens(self) -> int:
        """Return the most tokens of one text, special tokens included."""
        return self.get_model_info()["max_tokens"]

    @abstractmethod
    def submit(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        """Check texts and options, and begin to embed; see `embed_detailed`.

        Returns:
            A future. Cancelling it drops what has not run.
        """

    @abstractmethod
    def get_model_info(self) -> ModelInfo:
        """Report the model and how it runs, as plain types; takes no lock and waits for nothing."""

    @abstractmethod
    def get_metrics(self) -> ServiceMetrics:
        """Report the work that was done since the embedder was created, as plain types."""

    @abstractmethod
    def health_check(self) -> Health:
        """Report whether a call can be taken; never raises or waits, even while a forward pass hangs."""

    @abstractmethod
    def close(self, drain: bool = False) -> None:
        """Fail the calls that wait and free the model. Idempotent.

        Args:
            drain: first finish every call that was made, however long that takes; new calls are refused meanwhile.
        """

    def embed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> list[list[float]]:
        """Return one vector for each text, in order; see `embed_detailed`."""
        vectors: list[list[float]] = self.embed_array(texts, **options).tolist()
        return vectors

    def embed_array(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> OutputVectors:
        """Return the vectors as float32, shape (texts, dimension), C-contiguous; see `embed_detailed`.

        `output_dtype` chooses another type, see `EmbedOptions`.
        """
        return self.embed_detailed(texts, **options).vectors

    def embed_bytes(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> bytes:
        """Return the vectors of `embed_array` row by row, little-endian; see `embed_detailed`."""
        vectors = self.embed_array(texts, **options)
        return vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes()

    def embed_detailed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> EmbeddingBatch:
        """Embed texts, and report how many tokens of each were read and which were cut.

        Args:
            texts: strings; an empty collection gives an empty result.
            options: see `EmbedOptions`.

        Raises:
            InvalidInputError: a text or an option is not usable; `index` holds which text.
            InferenceError: the model computed something that is not a vector.
            DeadlineExceededError: `timeout` passed.
            ServiceOverloadedError: the queue is full; `retry_after_s` says when to try again.
            ServiceClosedError: the embedder takes no more calls.
            ReentrantCallError: the call would wait for the thread that it was made on.
        """
        return wait_for(partial(self.submit, texts, **options), options.get("timeout"))

    async def aembed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> OutputVectors:
        """Embed texts without blocking the event loop; see `embed_array`.

        Texts are tokenised on a thread of the loop's default executor. Cancelling the task drops what has not run.
        """
        return (await wait_async(partial(self.submit, texts, **options))).vectors

    def parse_options(self, options: EmbedOptions) -> CallOptions:
        """Check the options of one call against the model, and fill in the defaults.

        Raises:
            InvalidInputError: a value is not usable; the message names the option.
            TypeError: there is no such option.
        """
        info = self.get_model_info()
        cuttable = info["matryoshka"] or self.allow_untrained_dimensions
        sizes = DimensionRange(info["dimension"], info["native_dimension"], cuttable, info["model_name"])
        return parse_options(options, sizes)

    def __repr__(self) -> str:
        try:
            info = self.get_model_info()
        except AttributeError:  # its constructor failed
            return f"<{type(self).__name__}, not loaded>"
        name = reprlib.repr(info["model_name"])
        return f"<{type(self).__name__} {name}: {info['dimension']} dimensions, {info['status']}>"


def wait_for(submit: Callable[[], Future[_Result]], timeout: Any) -> _Result:
    """Submit a call, and wait for its result.

    Args:
        submit: begins the call.
        timeout: seconds for submitting and waiting together, or None.

    Raises:
        DeadlineExceededError: the timeout passed.
        ReentrantCallError: the call would wait for the thread that it was made on.
    """
    check_may_wait()
    deadline = Deadline(parse_timeout(timeout))
    future = submit()
    try:
        return future.result(deadline.left())
    except DeadlineExceededError:
        raise
    except FutureTimeoutError:
        raise deadline.error() from None
    finally:
        future.cancel()  # a wait that was interrupted drops the call; one that is done is not touched


async def wait_async(submit: Callable[[], Future[_Result]]) -> _Result:
    """Submit a call on a thread of the loop's default executor, and wait for its result without blocking the loop."""
    import asyncio  # which a program that has a loop has imported already

    submitted = asyncio.get_running_loop().run_in_executor(None, submit)
    try:
        future = await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(_cancel_submitted)
        raise
    return await asyncio.wrap_future(future)


def _cancel_submitted(submitted: asyncio.Future[Future[_Result]]) -> None:
    """Cancel a call whose caller has gone while it was being submitted."""
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()
