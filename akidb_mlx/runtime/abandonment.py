"""Work that cannot be interrupted, and is left behind when the deadline of its caller passes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

from akidb_mlx.deadline import Deadline
from akidb_mlx.runtime.locks import Latch

_Result = TypeVar("_Result")


def run_until(
    deadline: Deadline,
    work: Callable[[], _Result],
    on_abandoned: Callable[[Latch], None] = lambda _done: None,
) -> _Result:
    """Run `work` and return its result.

    Where the call has a deadline, `work` runs on a thread of its own. Once the deadline passes, that thread goes on
    without its caller; `work` should look at the deadline itself wherever it can.

    Args:
        deadline: when the caller leaves.
        work: the function.
        on_abandoned: told, before the caller leaves, of the latch that is set once `work` has ended.

    Raises:
        DeadlineExceededError: the deadline passed.
    """
    if deadline.left() is None:
        return work()
    results: list[_Result] = []
    errors: list[BaseException] = []
    done = Latch()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised on the caller's thread
            errors.append(error)
        done.set()

    threading.Thread(target=copy_context().run, args=(run,), name="akidb-mlx-abandonable", daemon=True).start()
    if not done.wait(deadline.left()):
        on_abandoned(done)
        raise deadline.error()
    if errors:
        raise errors[0]
    return results[0]
