"""Isolated calls of the engine: batches of their own, the same whatever runs beside them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import InvalidInputError, ServiceClosedError
from tests.engines import FakeModel, Pipelined, ThreeLanes, call, start, stop
from tests.support import TEXTS

# The first id tells whose sequence it is.
MINE = [[1, *range(length - 1)] for length in (5, 30, 12, 5, 40, 3, 21, 22)]
OTHERS = [[2, *range(length - 1)] for length in (5, 5, 30, 12, 40, 3, 64, 21, 7)]


class Watched(ThreeLanes):
    """It notes the first id and the length of every row of a batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def start(self, batches):
        self.batches += [list(zip(batch.ids[:, 0].tolist(), batch.lengths.tolist(), strict=True)) for batch in batches]
        return super().start(batches)

    def of(self, owner):
        return [batch for batch in self.batches if any(first == owner for first, _ in batch)]


def isolated(engine, *parts):
    opened = engine.open_call(np.concatenate, 0, Deadline(None), isolated=True)
    for part in parts:
        opened.add([np.array(ids, np.int32) for ids in part], range(len(part)), BatchKey(), lambda rows: rows, 0)
    return opened


def run_beside(others):
    """Return the batches of an isolated call that waited with other calls."""
    engine = start(Watched)
    engine.model.open.clear()
    first = call(engine, [9] * 64)
    assert engine.model.entered.wait(5)
    before = [call(engine, *OTHERS) for _ in range(others)]
    opened = isolated(engine, MINE[:3], MINE[3:])
    before += [call(engine, *OTHERS) for _ in range(others)]
    opened.end()
    engine.model.open.set()
    assert opened.future.result(5).tolist() == [[len(ids), 1] for ids in MINE]
    assert all(future.result(5) == [[len(ids), 2] for ids in OTHERS] for future in before)
    assert first.result(5)
    batches = engine.model.of(1)
    stop(engine)
    return batches


def test_an_isolated_call_has_the_same_batches_whatever_waits_beside_it():
    alone = run_beside(0)
    assert sum(map(len, alone)) == len(MINE) - 1, "two are equal, and computed once"
    for others in (1, 3):
        assert run_beside(others) == alone
    assert {first for batch in alone for first, _ in batch} == {1}


def test_isolated_calls_run_one_after_another_and_others_have_turns_between():
    engine = start(Watched)
    engine.model.open.clear()
    call(engine, [9] * 64)
    assert engine.model.entered.wait(5)
    calls = [isolated(engine, [[owner] * length for length in range(30, 60)]) for owner in (3, 4)]
    for opened in calls:
        opened.end()
    other = call(engine, [2] * 50)
    engine.model.open.set()
    for opened in calls:
        opened.future.result(5)
    owners = [batch[0][0] for batch in engine.model.batches if batch[0][0] != 9]
    assert [owner for owner in owners if owner != 2] == sorted(owner for owner in owners if owner != 2)
    assert owners.index(2) == 3, "after one step of three lanes"
    assert other.result(5)
    stop(engine)


def test_a_step_of_an_isolated_call_holds_nothing_else():
    """The number of batches in a step decides how many threads compute a matrix product, and so the last bits."""
    engine = start(Watched)
    engine.model.open.clear()
    call(engine, [9] * 64)
    assert engine.model.entered.wait(5)
    opened = isolated(engine, [[1] * length for length in range(57, 64)])
    opened.end()
    other = call(engine, *([[2, number] * 25 for number in range(9)]))
    engine.model.open.set()
    assert opened.future.result(5).tolist() == [[length, 1] for length in range(57, 64)]
    assert other.result(5)
    mine = [run for run in engine.model.runs if any(length in range(57, 64) for batch in run for length in batch)]
    assert [len(run) for run in mine] == [3, 3, 1]
    stop(engine)


@pytest.mark.parametrize("model", [FakeModel, Pipelined, ThreeLanes])
def test_an_isolated_call_waits_until_all_of_it_was_added(model):
    engine = start(model)
    opened = isolated(engine, MINE)
    assert call(engine, *OTHERS).result(5)
    assert not opened.future.done()
    opened.end()
    assert len(opened.future.result(5)) == len(MINE)
    assert engine.queue_depth() == {"requests": 0, "tokens": 0}
    stop(engine)


def test_an_isolated_call_can_be_dropped_before_it_begins():
    engine = start()
    for drop in (lambda opened: opened.cancel(), lambda opened: opened.fail(InvalidInputError("no"))):
        opened = isolated(engine, MINE)
        assert engine.queue_depth()["tokens"] == sum(map(len, MINE)) - 5, "two are equal"
        drop(opened)
        assert engine.queue_depth() == {"requests": 0, "tokens": 0}
    assert call(engine, *MINE).result(5)
    opened = isolated(engine, MINE)
    engine.close()
    with pytest.raises(ServiceClosedError):
        opened.future.result(5)


def test_an_isolated_call_gives_the_same_bits_beside_others(service):
    one = service("tiny-bert")
    texts = [f"{text} {number}" for number in range(6) for text in TEXTS]
    options = {"input_type": None, "dimensions": None}
    alone = one.submit_isolated(texts, **options).result(60)
    assert np.abs(alone.vectors - one.embed_array(texts)).max() < 1e-6
    over = threading.Event()

    def disturb():
        while not over.is_set():
            one.embed_array(texts[::3])

    with ThreadPoolExecutor() as threads:
        noise = [threads.submit(disturb) for _ in range(2)]
        again = [one.submit_isolated(texts) for _ in range(4)]
        results = [future.result(60) for future in again]
        over.set()
        [future.result(60) for future in noise]
    for batch in results:
        assert batch.vectors.tobytes() == alone.vectors.tobytes()
        assert (batch.token_counts, batch.truncated) == (alone.token_counts, alone.truncated)
