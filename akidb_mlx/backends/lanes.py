"""Models whose batches run side by side, each on a thread and a core of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from akidb_mlx.engine.backend import Model, ModelFacts, Step, TokenRows
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.runtime.owner import run_on_owner_thread
from akidb_mlx.vectors import Rows, Vectors

_Result = TypeVar("_Result")
_Task = tuple[Callable[[], _Result], "Future[_Result]"]


class Lanes(Generic[_Result]):
    """So many threads, which take tasks in the order in which they were handed over."""

    def __init__(self, count: int) -> None:
        """Start the threads."""
        self._count = count
        self._tasks: SimpleQueue[_Task[_Result] | None] = SimpleQueue()
        for _ in range(count):
            run_on_owner_thread(self._run)

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Hand a task over, and return the future of its result."""
        future: Future[_Result] = Future()
        self._tasks.put((work, future))
        return future

    def close(self) -> None:
        """End the threads once they have done all that was handed over."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, future = task
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(error)
            del task, work, future  # not kept while there is nothing to do


@dataclass(frozen=True)
class _LaneStep(Step):
    """Batches that were handed to the lanes."""

    vectors: list[Future[Vectors]]

    def result(self) -> list[Rows]:
        """Wait for the lanes; see `Step`."""
        wait(self.vectors)
        return [future.result() for future in self.vectors]


class LaneModel(Model):
    """A model that another library computes, a batch on each lane."""

    def __init__(self, facts: ModelFacts) -> None:
        """Start the lanes; `facts` lack the dimension, which `_try_out` finds."""
        self._facts = facts
        self._in_flight: list[Future[Vectors]] = []
        self._lanes: Lanes[Vectors] = Lanes(facts.lanes)

    @property
    def facts(self) -> ModelFacts:
        """Return its properties."""
        return self._facts

    def start(self, batches: Sequence[TokenRows]) -> Step:
        """Hand batches to the lanes; see `Model`."""
        for batch in batches:
            batch.check(self._facts)
        futures = [self._lanes.submit(partial(self._compute, batch)) for batch in batches]
        self._in_flight = [future for future in self._in_flight if not future.done()] + futures
        return _LaneStep(futures)

    def recover(self) -> None:
        """Wait until the lanes have done all that they were handed; an error leaves nothing behind."""
        wait(self._in_flight)

    def memory(self) -> dict[str, int]:
        """Return the bytes of the weights; the library does not tell what else it holds."""
        weights = self._facts.weight_bytes
        return {"active": weights, "cached": 0, "peak": weights}

    def release_memory(self) -> None:
        """Give back memory that malloc only keeps for reuse."""
        cpu_runtime.release_memory()

    def close(self) -> None:
        """Free the model, once the lanes are done; the last call."""
        wait(self._in_flight)
        self._lanes.close()
        self._free()

    def _try_out(self, measure: Callable[[], int]) -> None:
        """Take the dimension that a trial finds; a model that fails it is closed."""
        try:
            self._facts = replace(self._facts, dimension=measure())
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _compute(self, rows: TokenRows) -> Vectors:
        """Return the vectors of a batch; called on the lanes."""

    @abstractmethod
    def _free(self) -> None:
        """Free what the library holds."""
