"""A call on its way through the engine: what waits, what is done, and the future that tells the caller."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.engine.batching import Item, TokenIds
from akidb_mlx.errors import AkidbMlxError, InferenceError

Vectors = NDArray[np.float32]

# Stands for the futures of calls that are over.
_DONE: Future[Any] = Future()
_DONE.set_result(None)


class Part:
    """Texts of a call that were tokenised together.

    Attributes:
        request: the call.
        pooled: (sequences, native dimension), filled as batches are done.
        missing: how many rows are not filled.
        finished: what `finish` made of them; None until all are filled.
        prefix: the bytes of the token ids that all its sequences begin with, and that are left out of them.
        finish: makes of the pooled vectors what the call's result is combined from.
        texts: for each sequence, the index of its text in the call.
    """

    def __init__(
        self,
        request: Request,
        sequences: Sequence[TokenIds],
        texts: Sequence[int],
        dimension: int,
        prefix: bytes,
        finish: Callable[[Vectors], Vectors],
    ) -> None:
        self.request = request
        self.prefix = prefix
        self.pooled = np.empty((len(sequences), dimension), dtype=np.float32)
        self.missing = len(sequences)
        self.finished: Vectors | None = None
        self.finish = finish
        self.texts = texts
        rows: dict[bytes, Item] = {}
        for row, ids in enumerate(sequences):
            rows.setdefault(ids.tobytes(), Item(ids, self, [])).rows.append(row)
        self.items = list(rows.values())


class Request:
    """One call. It is fed part by part while the first parts may already run.

    Attributes:
        future: what the caller waits for; it can be cancelled until it is done. Some other one that is done, later.
        deadline: by `time.monotonic`, when the call is dropped; None for never.
        expected_tokens: how many tokens the parts that are still to come will have, by estimate.
        waiting: the items that wait, by prefix and padded length.
        submitted: when it was made, by `time.monotonic`.
        begun: when its first item was taken, by `time.monotonic`.
    """

    def __init__(self, combine: Callable[[list[Vectors]], Any], expected_tokens: int, deadline: float | None) -> None:
        """A call whose result is what `combine` makes of its finished parts."""
        self.future: Future[Any] = Future()
        self.deadline = deadline
        self.expected_tokens = expected_tokens
        self.waiting: dict[tuple[bytes, int], deque[Item]] = {}
        self.submitted = time.monotonic()
        self.begun: float | None = None
        self._combine = combine
        self._parts: list[Part] = []
        self._whole = False

    def add(self, part: Part, padded: Callable[[int], int]) -> None:
        """Queue a part's items; `padded` says what a sequence of a length is padded to."""
        self._parts.append(part)
        for item in part.items:
            self.waiting.setdefault((part.prefix, padded(len(item.ids))), deque()).append(item)

    def finish_part(self, part: Part) -> None:
        """Finish a part all of whose rows are filled; the last one resolves the call."""
        part.finished = part.finish(part.pooled)
        part.pooled = part.pooled[:0]
        self._resolve_if_done()

    def end(self) -> None:
        """No part will follow."""
        self._whole = True
        self._resolve_if_done()

    def fail(self, error: BaseException, item: Item | None = None) -> None:
        """Resolve the call with an error; one that is not ours becomes an `InferenceError`, which names the text."""
        failure = error
        if not isinstance(error, AkidbMlxError):
            index = None if item is None else item.part.texts[item.rows[0]]
            where = "" if index is None else f" on text {index}"
            failure = InferenceError(f"the forward pass failed{where}: {type(error).__name__}: {error}", index)
            failure.__cause__ = error
        _settle(self.future, lambda: self.future.set_exception(failure))

    def let_go(self) -> None:
        """Forget the future, which is done.

        It keeps its callbacks, and those keep the call: the result would wait for the garbage collector.
        """
        self.future = _DONE

    def _resolve_if_done(self) -> None:
        finished = [part.finished for part in self._parts if part.finished is not None]
        if self._whole and len(finished) == len(self._parts):
            result = self._combine(finished)
            _settle(self.future, lambda: self.future.set_result(result))


def _settle(future: Future[Any], resolve: Callable[[], None]) -> None:
    """Resolve a future that its caller may be cancelling, or that was resolved already."""
    try:
        resolve()
    except InvalidStateError:
        if not future.done():
            raise
