"""The bounded queue between callers and the owner thread: which calls are admitted, and what runs next.

Calls take turns: each turn starts a batch with the longest sequence of the call whose turn it is, and fills it with
sequences of like length from all calls in the order of their turns. So a call with 100 000 texts gives way to a short
one after a batch, many short ones share a batch, and none waits for ever.

The steps of an isolated call hold nothing of another one, and are chosen by its own sequences alone, so that the same
texts give the same bits whatever else waits: those depend on a batch, and on how many batches a step has. One isolated
call has turns at a time.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from akidb_mlx.engine.batching import Batch, PackedBatch
from akidb_mlx.engine.requests import CallFuture, QueuedSequence, Request, RequestPart
from akidb_mlx.errors import ServiceClosedError, ServiceOverloadedError
from akidb_mlx.runtime.locks import ExclusiveLock

# The hint of a refusal, while it is not known how fast the model is.
_FIRST_HINT_S = 1.0
_MAX_HINT_S = 60.0
# The share of the token budget that may be padding, beyond the bucket that each sequence is padded to by itself.
_PADDING_SHARE = 8
# The share of the token budget that a batch should have, more or less, so that few long sequences do not half fill it.
_FILL = 0.75
# A margin for padding and for what a batch leaves empty, where lanes divide what waits.
_UNEVEN = 1.5
# The share of the token budget below which lanes do not divide what waits: each would read all the weights for little.
_SMALLEST_SHARE = 3
# Weight of a new measurement of the speed.
_SMOOTHING = 0.1


class _Exclusive:
    """Holds a queue's lock, and frees the places of calls that are done before and after; cheaper than a generator."""

    def __init__(
        self, lock: ExclusiveLock, free_places: Callable[[], None], free_unless_locked: Callable[[], None]
    ) -> None:
        self._lock = lock
        self._free_places = free_places
        self._free_unless_locked = free_unless_locked

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._free_places()
        except BaseException:  # Ctrl-C
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._free_unless_locked()


class RequestQueue:
    """Calls that wait. Every method may be called from any thread.

    The lock is never waited for in a done-callback, which a signal handler or the garbage collector may run on a thread
    that holds it: a call that is done is noted in `_done`, and whoever holds the lock next frees its place.

    Attributes:
        closed: whether no call is admitted any more.
    """

    def __init__(
        self, max_requests: int, max_tokens: int, on_end: Callable[[Request], None] = lambda _request: None
    ) -> None:
        """Make an empty queue.

        Args:
            max_requests: most calls that are admitted and not done.
            max_tokens: most tokens that may wait; a single call with more is admitted when nothing else waits.
            on_end: told of each call that was admitted, once it is done.
        """
        self.closed = False
        self._drained = False
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._on_end = on_end
        self._numbers = count()
        self._open: dict[int, Request] = {}
        self._done: deque[int] = deque()
        self._turns: deque[Request] = deque()
        # Those that may run; the first has turns.
        self._isolated: deque[Request] = deque()
        self._tokens = 0
        self._expected = 0
        self._tokens_per_s = 0.0
        self._lock = ExclusiveLock()
        self._exclusive = _Exclusive(self._lock, self._free_places, self._free_unless_locked)
        # A queue wakes the owner thread, since `put` may be called from anywhere, a signal handler too.
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._owner_waits = False

    @property
    def requests(self) -> int:
        """Return the number of calls that are admitted and not done."""
        return len(self._open)

    @property
    def tokens(self) -> int:
        """Return the number of tokens that wait, with those expected of calls that are still being tokenised."""
        return self._tokens + self._expected

    @property
    def load(self) -> float:
        """Return how full the queue is: 0 to 1, or above."""
        return max(self.requests / self._max_requests, self.tokens / self._max_tokens)

    @property
    def finished(self) -> bool:
        """Return whether nothing more is to be run: the queue is closed and, if it is to be drained, empty."""
        return self.closed and not (self._drained and self._open)

    def admit(self, request: Request) -> None:
        """Admit a call, or refuse it at once.

        Raises:
            ServiceOverloadedError: the queue is full.
            ServiceClosedError: the queue is closed.
            ReentrantCallError: this thread is inside the queue already.
        """
        if self._is_full(request.expected_tokens):
            self._fail_late()
        number = next(self._numbers)
        try:
            with self._exclusive:
                self._check_open()
                if self._is_full(request.expected_tokens):
                    raise self._overloaded()
                self._open[number] = request
                self._expected += request.expected_tokens
            # Not a method of the request: its future keeps its callbacks, and would keep itself through them.
            request.future.add_done_callback(partial(self._note_done, number))
        except BaseException:
            request.future.cancel()
            self._note_done(number, request.future)
            raise

    def add(
        self,
        part: RequestPart,
        sequences: list[QueuedSequence],
        padded: Callable[[int], int],
        expected_tokens: int,
    ) -> None:
        """Queue a part of an admitted call.

        Args:
            part: the part.
            sequences: its distinct sequences.
            padded: maps a sequence's length to the one that it is padded to.
            expected_tokens: the number that had been expected of it.

        Raises:
            ServiceClosedError: the queue was closed meanwhile.
            ReentrantCallError: this thread is inside the queue already.
        """
        request = part.request
        with self._exclusive:
            if request.future.over:
                return  # it was cancelled, or failed with its earlier parts
            if self.closed and not self._drained:
                raise self._closed_error()
            self._expect_less(request, expected_tokens)
            if sequences and not request.waiting and not request.isolated:
                self._turns.append(request)
            request.add(part, sequences, padded)
            self._tokens += sum(len(sequence.ids) for sequence in sequences)
            self._wake_owner()

    def start(self, request: Request) -> None:
        """Let an isolated call run, all of whose parts were added.

        Raises:
            ReentrantCallError: this thread is inside the queue already.
        """
        with self._exclusive:
            if request.waiting and not request.future.over:
                self._isolated.append(request)
                self._let_isolated_in()
                self._wake_owner()

    def wait(self, timeout: float | None, delay: float) -> bool:
        """Wait on the owner thread until something can run, or nothing more is to be run.

        Args:
            timeout: seconds at most, or None.
            delay: seconds that the first call, after nothing waited, waits for others to join it.

        Returns:
            Whether something waits now.
        """
        if self._must_wait():
            self._sleep(timeout, lambda: not self._must_wait())
            if self._turns and delay:
                self._sleep(delay, lambda: self.closed)
        return bool(self._turns)

    def take(self, lanes: int, token_budget: int, packed: bool = False) -> list[Batch[QueuedSequence]]:
        """Return what runs next: `lanes` batches at most, of about equal size, which divide what waits if it is little.

        Nothing runs of a call whose deadline has passed. With `packed`, all sequences that wait are packed.
        """
        self._fail_late()
        with self._exclusive:
            least = token_budget // _SMALLEST_SHARE
            limit = token_budget
            if lanes > 1:
                limit = min(token_budget, max(least, math.ceil(_UNEVEN * self._tokens / lanes)))
            target = _FILL * limit
            batches: list[Batch[QueuedSequence]] = []
            first = self._turns[0] if self._turns else None
            if first is not None and first.isolated:
                limit, target = token_budget, _FILL * token_budget
            while first is not None and len(batches) < lanes:
                batch = self._fill(
                    first, PackedBatch if packed else Batch, limit, target, token_budget // _PADDING_SHARE
                )
                if batch.full:  # lanes that have as much to do are done together
                    limit, target = max(limit, batch.padded_tokens), batch.padded_tokens
                batches.append(batch)
                first = self._next_beside(first)
            return batches

    def measured(self, tokens: int, seconds: float) -> None:
        """Note how long some tokens took, for the hint of a refusal."""
        speed = tokens / max(seconds, 1e-9)
        self._tokens_per_s += (speed - self._tokens_per_s) * (_SMOOTHING if self._tokens_per_s else 1.0)

    def close(self, drain: bool = False) -> None:
        """Admit no more calls; takes no lock.

        Args:
            drain: whether those that are admitted are still to be run.
        """
        self._drained = drain
        self.closed = True
        self._wakeups.put(None)

    def fail_all(self, error: Exception) -> None:
        """Close the queue, and resolve every call that is not done."""
        with self._exclusive:  # a call is admitted before this, or not at all
            self._drained = False
            self.closed = True
            requests = list(self._open.values())
        for request in requests:
            request.fail(error)

    def _next_beside(self, request: Request) -> Request | None:
        """Return the call whose batch may run in one step with a batch of `request`."""
        if request.isolated:
            return request if request.waiting else None
        return next((other for other in self._turns if not other.isolated), None)

    def _fill(
        self, first: Request, kind: type[Batch[QueuedSequence]], limit: int, target: float, most_padding: int
    ) -> Batch[QueuedSequence]:
        """Return the batch of the call whose turn it is."""
        key, longest = max(first.waiting, key=lambda place: place[1])
        batch = kind(key, longest, limit, target, most_padding)
        sharing = [first] if first.isolated else [request for request in self._turns if not request.isolated]
        lengths = {length for request in sharing for other, length in request.waiting if other == key}
        for length in sorted(lengths, reverse=True):
            if length <= longest and not self._add_all(batch, length, sharing):
                break
        self._turns.remove(first)
        self._turns.append(first)
        for request in [request for request in self._turns if not request.waiting]:
            self._leave(request)
        return batch

    def _add_all(self, batch: Batch[QueuedSequence], length: int, sharing: list[Request]) -> bool:
        """Add the sequences of this length, of calls in turn; return False when the batch takes no more."""
        for request in sharing:
            sequences = request.waiting.get((batch.key, length))
            while sequences:
                if not batch.add(sequences[0]):
                    return False
                self._tokens -= len(sequences.popleft().ids)
                if not sequences:
                    del request.waiting[batch.key, length]
                if request.begun is None:
                    request.begun = time.monotonic()
        return True

    def _leave(self, request: Request) -> None:
        """Take a call of which nothing waits out of the turns."""
        if not request.isolated:
            self._turns.remove(request)
            return
        for place in (self._turns, self._isolated):
            if request in place:  # it may have had no turn
                place.remove(request)
        self._let_isolated_in()

    def _let_isolated_in(self) -> None:
        if self._isolated and self._isolated[0] not in self._turns:
            self._turns.append(self._isolated[0])

    def _must_wait(self) -> bool:
        with self._exclusive:
            self._owner_waits = not self._turns and not self.finished
            return self._owner_waits

    def _sleep(self, seconds: float | None, over: Callable[[], bool]) -> None:
        """Sleep on the owner thread until `over`, looked at after each wake-up, or for `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while not over():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            try:
                self._wakeups.get(timeout=left)
            except Empty:
                return

    def _wake_owner(self) -> None:
        if self._owner_waits:
            self._owner_waits = False
            self._wakeups.put(None)

    def _note_done(self, number: int, future: Future[Any]) -> None:
        """Free the place of a call that is done, or have the thread free it that holds the lock."""
        assert isinstance(future, CallFuture)
        if future.was_cancelled:
            future.set_running_or_notify_cancel()  # wakes `concurrent.futures.wait`
        self._done.append(number)
        self._free_unless_locked()

    def _free_unless_locked(self) -> None:
        # Again after each release: a call that was noted meanwhile, and did not find the lock free, is ours.
        while self._done and self._lock.try_acquire():
            try:
                self._free_places()
            finally:
                self._lock.release()

    def _free_places(self) -> None:
        """Forget the calls that are done, with what still waits of them; the lock is held."""
        while self._done:
            request = self._open.pop(self._done.popleft(), None)
            if request is None:
                continue
            self._expect_less(request, request.expected_tokens)
            if request.waiting:
                self._tokens -= sum(len(one.ids) for waiting in request.waiting.values() for one in waiting)
                self._leave(request)
            request.release()
            self._on_end(request)
            if self.finished:
                self._wake_owner()

    def _fail_late(self) -> None:
        """Fail the calls whose deadline has passed; without the lock, since futures call their callers back."""
        with self._exclusive:
            late = [request for request in self._open.values() if request.deadline.passed]
        for request in late:
            request.fail(request.deadline.error())

    def _expect_less(self, request: Request, tokens: int) -> None:
        less = min(tokens, request.expected_tokens)
        request.expected_tokens -= less
        self._expected -= less

    def _is_full(self, tokens: int) -> bool:
        beyond = self.tokens + tokens > self._max_tokens
        return self.requests >= self._max_requests or (beyond and self.tokens > 0)

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _closed_error(self) -> ServiceClosedError:
        return ServiceClosedError("the service is closed; create a new EmbeddingService")

    def _overloaded(self) -> ServiceOverloadedError:
        hint = self.tokens / self._tokens_per_s if self._tokens_per_s else _FIRST_HINT_S
        hint = min(max(hint, 0.01), _MAX_HINT_S)
        return ServiceOverloadedError(
            f"the queue is full: {self.requests} calls of at most {self._max_requests}, {self.tokens} tokens of at "
            f"most {self._max_tokens}; try again in {hint:.1f} s, or raise max_queued_requests or max_queued_tokens",
            retry_after_s=hint,
        )
