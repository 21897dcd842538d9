"""A call on its way through the engine: its sequences that wait, its vectors so far, and the caller's future."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import AkidbMlxError, InferenceError
from akidb_mlx.runtime.owner import on_owner_thread
from akidb_mlx.vectors import Rows, TokenIds

logger = logging.getLogger(__name__)

# Seconds that a future's lock is waited for; whoever looks at a future holds it for microseconds.
_LOCK_TIMEOUT_S = 0.01
# In the place of a row that is not computed.
_MISSING: NDArray[Any] = np.empty(0)


@dataclass(frozen=True, eq=False)
class QueuedSequence:
    """One sequence that waits.

    Attributes:
        ids: its tokens, without the prefix of its part.
        part: the part that its vector belongs to.
        rows: the rows of the part that it fills; several where a call holds a sequence more than once, or where it is
            packed.
        segment: how many leading tokens are of the first token type; 0 where the model is not told of types.
        lengths: for a packed sequence, which holds the tokens of several one after another, the length of each; else
            None.
    """

    ids: TokenIds
    part: RequestPart
    rows: list[int]
    segment: int = 0
    lengths: TokenIds | None = None


class RequestPart:
    """Texts of a call that were tokenised together.

    Attributes:
        request: the call.
        key: all that its sequences have in common.
        pooled: the rows of the sequences, filled as batches are done.
        missing: how many rows are not filled.
        finish: makes of the rows what the call's result is combined from.
        finished: the result of `finish`; None until all rows are filled.
        texts: for each sequence, the index of its text in the call.
    """

    def __init__(
        self,
        request: Request,
        texts: Sequence[int],
        dimension: int | None,
        key: BatchKey,
        finish: Callable[[Any], Any],
    ) -> None:
        """Make a part of which nothing is computed; `dimension` is the size of its rows, None where they differ."""
        self.request = request
        self.key = key
        self.pooled: Rows = (
            [_MISSING] * len(texts) if dimension is None else np.empty((len(texts), dimension), np.float32)
        )
        self.missing = len(texts)
        self.finish = finish
        self.finished: Any = None
        self.texts = texts

    def fill(self, sequence: QueuedSequence, values: Any) -> None:
        """Take the row of a sequence, or the rows of a packed one."""
        if isinstance(self.pooled, list):
            for row in sequence.rows:
                self.pooled[row] = values
        else:
            self.pooled[sequence.rows] = values
        self.missing -= len(sequence.rows)


def distinct_sequences(
    part: RequestPart, sequences: Sequence[TokenIds], segments: Iterable[int] = repeat(0)
) -> list[QueuedSequence]:
    """Return the sequences of a part, equal ones as one. The part does not keep them: they refer to it."""
    distinct: dict[tuple[int, bytes], QueuedSequence] = {}
    for row, (ids, segment) in enumerate(zip(sequences, segments, strict=False)):
        distinct.setdefault((segment, ids.tobytes()), QueuedSequence(ids, part, [], segment)).rows.append(row)
    return list(distinct.values())


class CallFuture(Future[Any]):
    """The future of a call, which cannot harm the thread that resolves it.

    concurrent.futures lets a `SystemExit` or `KeyboardInterrupt` out of a callback; on the owner thread it would end
    the model, and the callbacks after it would never run. And its methods wait for the future's lock, which a caller
    may hold who was interrupted by a signal; the engine reads these attributes instead.

    Attributes:
        was_cancelled: whether it was cancelled before it was resolved.
        error: the error that it is resolved with, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.was_cancelled = False
        self.error: BaseException | None = None
        # Emptied by whoever ends the call; `pop` is atomic.
        self._pending = [True]

    @property
    def over(self) -> bool:
        """Return whether the call is being resolved, or was cancelled."""
        return not self._pending

    def cancel(self) -> bool:
        """Drop the call, unless it is done; return whether it is cancelled."""
        if self._claim():
            self.was_cancelled = True
            super().cancel()
        return self.was_cancelled

    def set_result(self, result: Any) -> None:
        """Resolve the call with its result.

        Raises:
            InvalidStateError: it is over.
        """
        if not self._claim():
            raise InvalidStateError("the call is over")
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Resolve the call with an error.

        Raises:
            InvalidStateError: it is over.
        """
        if not self._claim():
            raise InvalidStateError("the call is over")
        self.error = exception
        super().set_exception(exception)

    def _claim(self) -> bool:
        """Return whether the caller of this method is the one that ends the call."""
        try:
            return self._pending.pop()
        except IndexError:
            return False

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call `fn` once the call is done; an error that it raises is logged."""
        super().add_done_callback(partial(_run_callback, fn))


def _run_callback(callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    try:
        callback(future)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not on_owner_thread():
            raise  # Ctrl-C, on the thread of somebody who cancels a call
        logger.exception("a done-callback of a call raised %s", type(error).__name__)


class Request:
    """One call. It is fed part by part while the first parts may already run.

    Attributes:
        future: the caller's; it can be cancelled until it is done.
        deadline: when the call is dropped.
        expected_tokens: how many tokens the parts that are still to come will have, by estimate.
        waiting: the sequences that wait, by the key of their part and padded length.
        begun: when its first sequence was taken, by `time.monotonic`.
        isolated: whether its batches hold no sequence of another call, and depend on nothing but its own sequences.
    """

    def __init__(
        self,
        combine: Callable[[list[Any]], Any],
        expected_tokens: int,
        deadline: Deadline,
        isolated: bool = False,
    ) -> None:
        """Make a call whose result is that of `combine` on its finished parts."""
        self.future = CallFuture()
        self.deadline = deadline
        self.isolated = isolated
        self.expected_tokens = expected_tokens
        self.waiting: dict[tuple[BatchKey, int], deque[QueuedSequence]] = {}
        self.begun: float | None = None
        self._combine = combine
        self._parts: list[RequestPart] = []
        self._complete = False

    @property
    def age(self) -> float:
        """Return the seconds since the call was made."""
        return time.monotonic() - self.deadline.began

    def add(self, part: RequestPart, sequences: list[QueuedSequence], padded: Callable[[int], int]) -> None:
        """Queue a part's sequences; `padded` maps a length to the one that it is padded to."""
        self._parts.append(part)
        for sequence in sequences:
            self.waiting.setdefault((part.key, padded(len(sequence.ids))), deque()).append(sequence)

    def finish_part(self, part: RequestPart) -> None:
        """Finish a part all of whose rows are filled; the last one resolves the call."""
        part.finished = part.finish(part.pooled)
        part.pooled = part.pooled[:0]
        self._resolve_if_done()

    def end(self) -> None:
        """Note that no part will follow."""
        self._complete = True
        self._resolve_if_done()

    def fail(self, error: BaseException, sequence: QueuedSequence | None = None) -> None:
        """Resolve the call with an error; one that is not ours becomes an `InferenceError` that names the text."""
        failure = error
        if not isinstance(error, AkidbMlxError):
            index = None
            if sequence is not None and sequence.lengths is None:
                index = sequence.part.texts[sequence.rows[0]]
            where = "" if index is None else f" on text {index}"
            failure = InferenceError(f"the forward pass failed{where}: {type(error).__name__}: {error}", index)
            failure.__cause__ = error
        _settle(self.future, lambda: self.future.set_exception(failure))

    def release(self) -> None:
        """Drop the parts of a call that is done; they refer to it, and only the garbage collector would free both."""
        self.waiting.clear()
        self._parts.clear()

    def _resolve_if_done(self) -> None:
        if self.future.over:
            return
        finished = [part.finished for part in self._parts if part.finished is not None]
        if self._complete and len(finished) == len(self._parts):
            result = self._combine(finished)
            _settle(self.future, lambda: self.future.set_result(result))


def _settle(future: CallFuture, resolve: Callable[[], None]) -> None:
    """Resolve a future unless it is over, on another thread where its lock stays held.

    A signal handler may interrupt a caller that holds the future's lock, and then wait for another call: the thread
    that computes both must not wait for that lock.
    """

    def unless_over() -> None:
        with suppress(InvalidStateError):
            resolve()

    if future._condition.acquire(timeout=_LOCK_TIMEOUT_S):
        future._condition.release()  # not held while callbacks run, which `resolve` calls
        unless_over()
    else:
        threading.Thread(target=unless_over, name="akidb-mlx-resolver", daemon=True).start()
