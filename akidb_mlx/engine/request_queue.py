"""The bounded queue between callers and the owner thread: who may enter, and what runs next.

Calls take turns: each turn starts a batch with the longest sequence of the call whose turn it is, and fills it with
sequences of like length from all calls in the order of their turns. So a call with 100 000 texts gives way to a short
one after a batch, many short ones share a batch, and none waits for ever.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from akidb_mlx.engine.batching import Batch
from akidb_mlx.engine.requests import Part, Request
from akidb_mlx.errors import DeadlineExceededError, ServiceClosedError, ServiceOverloadedError

# The hint of a refusal, while it is not known how fast the model is.
_FIRST_HINT_S = 1.0
_MAX_HINT_S = 60.0
# The share of the token budget that may be padding, beyond what each sequence is padded to by itself.
_PADDING_SHARE = 8
# The share of the token budget that a batch should have, more or less, so that few long sequences do not half fill it.
_FILL = 0.75
# Room for the padding and for what a batch leaves empty, where lanes divide what waits.
_UNEVEN = 1.5
# The share of the token budget below which lanes do not divide what waits: each would read all the weights for little.
_SMALLEST_SHARE = 3
# Weight of a new measurement of the speed.
_SMOOTHING = 0.1


class RequestQueue:
    """Calls that wait. Every method may be called from any thread.

    Attributes:
        closed: whether no call is admitted any more.
    """

    def __init__(self, max_requests: int, max_tokens: int) -> None:
        """An empty queue.

        Args:
            max_requests: most calls that are admitted and not done.
            max_tokens: most tokens that may wait; a single call with more is admitted when nothing else waits.
        """
        self.closed = False
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._open: set[Request] = set()
        self._turns: deque[Request] = deque()
        self._tokens = 0
        self._expected = 0
        self._tokens_per_s = 0.0
        # Reentrant: a future that is resolved or cancelled calls `_forget`, also from the garbage collector.
        self._changed = threading.Condition(threading.RLock())

    @property
    def requests(self) -> int:
        """Calls that are admitted and not done."""
        return len(self._open)

    @property
    def tokens(self) -> int:
        """Tokens that wait, with what is expected of calls that are still being tokenised."""
        return self._tokens + self._expected

    @property
    def load(self) -> float:
        """How full the queue is, 0 to 1 or above."""
        return max(self.requests / self._max_requests, self.tokens / self._max_tokens)

    def admit(self, request: Request) -> None:
        """Let a call in, or refuse it at once.

        Raises:
            ServiceOverloadedError: the queue is full.
            ServiceClosedError: the queue is closed.
        """
        if self._is_full(request.expected_tokens):
            self._drop_late()
        with self._changed:
            self._check_open()
            if self._is_full(request.expected_tokens):
                raise self._overloaded()
            self._open.add(request)
            self._expected += request.expected_tokens
        # Also when the caller cancels it, which frees its place.
        request.future.add_done_callback(lambda future: self._forget(request, future.cancelled()))

    def add(self, part: Part, padded: Callable[[int], int], expected_tokens: int) -> None:
        """Queue a part of an admitted call.

        Args:
            part: the part.
            padded: what a sequence of a length is padded to.
            expected_tokens: what had been expected of it.

        Raises:
            ServiceClosedError: the queue was closed meanwhile.
        """
        request = part.request
        with self._changed:
            if request not in self._open:
                self._check_open()
                return  # it was cancelled, or failed with its earlier parts
            self._expect_less(request, expected_tokens)
            if part.items and not request.waiting:
                self._turns.append(request)
            request.add(part, padded)
            self._tokens += sum(len(item.ids) for item in part.items)
            self._changed.notify_all()

    def wait(self, timeout: float | None, delay: float) -> bool:
        """Wait on the owner thread until something can run.

        Args:
            timeout: seconds, or None to wait until there is work or the queue is closed.
            delay: seconds that the first call, after nothing waited, waits for others to join it.

        Returns:
            Whether something waits now.
        """
        with self._changed:
            if not self._turns and not self.closed:
                self._changed.wait_for(lambda: self._turns or self.closed, timeout)
                if self._turns and delay:
                    self._changed.wait_for(lambda: self.closed, delay)
            return bool(self._turns)

    def take(self, lanes: int, token_budget: int) -> list[Batch]:
        """What runs next: at most `lanes` batches of about equal size, which divide what waits if that is little."""
        self._drop_late()
        with self._changed:
            least = token_budget // _SMALLEST_SHARE
            limit = token_budget
            if lanes > 1:
                limit = min(token_budget, max(least, math.ceil(_UNEVEN * self._tokens / lanes)))
            aim = _FILL * limit
            batches: list[Batch] = []
            while self._turns and len(batches) < lanes:
                batch = self._fill(limit, aim, token_budget // _PADDING_SHARE)
                if batch.full:  # lanes that have as much to do are done together
                    limit, aim = max(limit, batch.padded_tokens), batch.padded_tokens
                batches.append(batch)
            return batches

    def measured(self, tokens: int, seconds: float) -> None:
        """Note how long some tokens took, for the hint of a refusal."""
        speed = tokens / max(seconds, 1e-9)
        self._tokens_per_s += (speed - self._tokens_per_s) * (_SMOOTHING if self._tokens_per_s else 1.0)

    def close(self) -> None:
        """Admit no more calls."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def fail_all(self, error: Exception) -> None:
        """Resolve every call that is not done."""
        with self._changed:
            requests = list(self._open)
        for request in requests:
            request.fail(error)

    def _fill(self, limit: int, aim: float, most_padding: int) -> Batch:
        """The batch of the call whose turn it is."""
        first = self._turns[0]
        prefix, longest = max(first.waiting, key=lambda key: key[1])
        batch = Batch(prefix, longest, limit, aim, most_padding)
        lengths = {length for request in self._turns for start, length in request.waiting if start == prefix}
        for length in sorted(lengths, reverse=True):
            if length <= longest and not self._add_all(batch, length):
                break
        self._turns.rotate(-1)
        for request in [request for request in self._turns if not request.waiting]:
            self._turns.remove(request)
        return batch

    def _add_all(self, batch: Batch, length: int) -> bool:
        """Add what has this length, of all calls in turn; False when the batch takes no more."""
        for request in self._turns:
            items = request.waiting.get((batch.prefix, length))
            while items:
                if not batch.add(items[0]):
                    return False
                self._tokens -= len(items.popleft().ids)
                if not items:
                    del request.waiting[batch.prefix, length]
                if request.begun is None:
                    request.begun = time.monotonic()
        return True

    def _forget(self, request: Request, cancelled: bool) -> None:
        """Free the place of a call that is done, and drop what still waits of it."""
        if cancelled:
            request.future.set_running_or_notify_cancel()  # wakes `concurrent.futures.wait`
        with self._changed:
            if request not in self._open:
                return
            self._open.remove(request)
            self._expect_less(request, request.expected_tokens)
            if request.waiting:
                self._tokens -= sum(len(item.ids) for items in request.waiting.values() for item in items)
                request.waiting.clear()
                self._turns.remove(request)
            self._changed.notify_all()

    def _drop_late(self) -> None:
        """Fail the calls whose deadline has passed; without the lock, since futures call their callers back."""
        now = time.monotonic()
        with self._changed:
            late = [request for request in self._open if request.deadline is not None and request.deadline < now]
        for request in late:
            request.fail(DeadlineExceededError.after(now - request.submitted))

    def _expect_less(self, request: Request, tokens: int) -> None:
        less = min(tokens, request.expected_tokens)
        request.expected_tokens -= less
        self._expected -= less

    def _is_full(self, tokens: int) -> bool:
        beyond = self.tokens + tokens > self._max_tokens
        return self.requests >= self._max_requests or (beyond and self.tokens > 0)

    def _check_open(self) -> None:
        if self.closed:
            raise ServiceClosedError("the service is closed; create a new EmbeddingService")

    def _overloaded(self) -> ServiceOverloadedError:
        hint = self.tokens / self._tokens_per_s if self._tokens_per_s else _FIRST_HINT_S
        hint = min(max(hint, 0.01), _MAX_HINT_S)
        return ServiceOverloadedError(
            f"the queue is full: {self.requests} calls of at most {self._max_requests}, {self.tokens} tokens of at "
            f"most {self._max_tokens}; try again in {hint:.1f} s, or raise max_queued_requests or max_queued_tokens",
            retry_after_s=hint,
        )
