"""Engines on a model that a test can hold, fail and look into."""

import threading
from dataclasses import replace

import numpy as np

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey, ModelFacts
from akidb_mlx.engine.engine import Engine
from akidb_mlx.engine.life import EngineLimits

LIMITS = EngineLimits(max_queued_requests=100, max_queued_tokens=10_000, coalesce_delay_s=0, stuck_after_s=60)


class FakeStep:
    def __init__(self, model, batches):
        self.model, self.batches = model, batches

    def result(self):
        return [self.model.encode(batch) for batch in self.batches]


class FakeModel:
    """Its vector of a sequence is (length, first id); a first id above 1000 makes it fail, and it can be held."""

    facts = ModelFacts(
        dimension=2,
        max_tokens=512,
        vocabulary_size=1 << 30,
        token_budget=64,
        lanes=1,
        pipelined=False,
        bucket_lengths=True,
        shares_prefixes=False,
        backend="fake",
        device="cpu",
        precision="float32",
        allow_tf32=False,
        weight_bytes=0,
    )

    def __init__(self):
        self.thread = threading.current_thread()
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.released = threading.Event()
        self.closed = threading.Event()
        self.runs = []

    def start(self, batches):
        assert threading.current_thread() is self.thread
        assert 1 <= len(batches) <= self.facts.lanes
        self.entered.set()
        assert self.open.wait(30)
        self.runs.append([batch.lengths.tolist() for batch in batches])
        return FakeStep(self, batches)

    def encode(self, batch):
        assert threading.current_thread() is self.thread
        assert batch.ids.shape == (len(batch.lengths), batch.ids.shape[1])
        assert batch.ids.shape[1] >= batch.lengths.max()
        if (batch.ids[:, 0] > 2000).any():
            raise SystemExit("as a native panic would be")
        if (batch.ids[:, 0] > 1000).any():
            raise RuntimeError("out of memory")
        return np.stack([batch.lengths, batch.ids[:, 0]], axis=1).astype(np.float32)

    def recover(self):
        assert threading.current_thread() is self.thread

    def memory(self):
        return {"active": 1}

    def release_memory(self):
        self.released.set()

    def close(self):
        assert threading.current_thread() is self.thread
        self.closed.set()


class ThreeLanes(FakeModel):
    facts = replace(FakeModel.facts, lanes=3)


class Pipelined(FakeModel):
    facts = replace(FakeModel.facts, pipelined=True)


class OneErrorSlot(Pipelined):
    """A pipelined model on a stream like Metal's: one place for an error, which whoever looks first takes away.

    A step that fails leaves garbage in its vectors, and its error in the slot at once.

    Attributes:
        failures: how many times more a sequence that begins with an id fails.
    """

    def __init__(self):
        super().__init__()
        self.failures = {}
        self.slot = None

    def start(self, batches):
        self.look()
        super().start(batches)
        step = SlotStep(self, [self.encode(batch) for batch in batches])
        for batch, vectors in zip(batches, step.vectors, strict=True):
            for first in set(batch.ids[:, 0].tolist()):
                if self.failures.get(first, 0) > 0:
                    self.failures[first] -= 1
                    vectors[:] = 7.5
                    self.record(step, RuntimeError("the command buffer failed"))
        return step

    def record(self, _step, error):
        self.slot = error

    def look(self):
        error, self.slot = self.slot, None
        if error is not None:
            raise error

    def wait(self, _step):
        self.look()

    def recover(self):
        super().recover()
        self.slot = None


class LateErrorSlot(OneErrorSlot):
    """One whose error comes later: while the next step is handed over, or when somebody waits for the step itself."""

    failed = None

    def record(self, step, error):
        self.failed = (step, error)

    def start(self, batches):
        self._settle()
        return super().start(batches)

    def wait(self, step):
        if self.failed and self.failed[0] is step:
            self._settle()
        self.look()

    def recover(self):
        super().recover()
        self.failed = None

    def _settle(self):
        if self.failed:
            self.slot, self.failed = self.failed[1], None


class SlotStep:
    def __init__(self, model, vectors):
        self.model, self.vectors = model, vectors

    def result(self):
        self.model.wait(self)
        return self.vectors


def start(model=FakeModel, **limits):
    """An engine whose model can be reached."""
    models = []

    def load():
        models.append(model())
        return models[-1]

    engine = Engine(load, replace(LIMITS, **limits))
    engine.wait_until_loaded()
    engine.models = models
    engine.model = models[0]
    return engine


def stop(engine):
    for model in engine.models:
        model.open.set()
    engine.close()


def open_call(engine, combine, expected_tokens=0, timeout=None):
    return engine.open_call(combine, expected_tokens, Deadline(timeout))


def call(engine, *sequences, timeout=None, finish=lambda vectors: vectors):
    opened = open_call(engine, lambda parts: np.concatenate(parts).tolist() if parts else [], 0, timeout)
    if sequences:
        ids = [np.array(sequence, np.int32) for sequence in sequences]
        opened.add(ids, range(len(ids)), BatchKey(), finish, 0)
    opened.end()
    return opened.future


def hold(engine):
    """Hold the model in a step, so that what is submitted next waits; returns the call that runs."""
    engine.model.open.clear()
    first = call(engine, [999])
    assert engine.model.entered.wait(5)
    return first
