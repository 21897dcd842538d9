"""An embedding model that llama.cpp computes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue

import numpy as np

from akidb_mlx.backends.llama_cpp.context import EmbeddingContext
from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf
from akidb_mlx.backends.llama_cpp.vocabulary import Vocabulary
from akidb_mlx.backends.onnx.lanes import Lanes
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.engine.backend import Model, ModelFacts, Step, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName
from akidb_mlx.vectors import Rows, Vectors

# Most tokens in one batch.
_TOKEN_BUDGET = {"cpu": 512, "gpu": 4096}
_MAX_LANES = 8


@dataclass(frozen=True)
class _LaneStep(Step):
    """Batches that were handed to the lanes."""

    vectors: list[Future[Vectors]]

    def result(self) -> list[Rows]:
        """Wait for the lanes; see `Step`."""
        wait(self.vectors)
        return [future.result() for future in self.vectors]


class LlamaCppModel(Model):
    """A model of llama.cpp's, with a context for each core."""

    def __init__(self, checkpoint: Checkpoint, device: DeviceName, token_budget: int | None) -> None:
        """Load a file, and try the model on a few tokens.

        Args:
            checkpoint: the description of the file.
            device: where it runs; "auto" takes a GPU if llama.cpp was built for one.
            token_budget: most tokens in one batch; None for the device's default.

        Raises:
            ModelLoadError: llama.cpp refuses the file, or computes something that is not a vector.
            ConfigurationError: llama-cpp-python is not installed or has no such device.
        """
        assert checkpoint.gguf is not None
        self._model = LoadedGguf(checkpoint.directory, device)
        on_gpu = self._model.on_gpu
        kind = "gpu" if on_gpu else "cpu"
        self._lane_count = 1 if on_gpu else min(cpu_runtime.cores(), _MAX_LANES)
        self._facts = ModelFacts(
            dimension=0,
            max_tokens=checkpoint.max_tokens,
            vocabulary_size=Vocabulary(self._model).size,
            token_budget=token_budget or _TOKEN_BUDGET[kind],
            lanes=self._lane_count,
            pipelined=True,  # so that a lane whose batch was short does not wait for the other
            bucket_lengths=False,
            shares_prefixes=False,
            backend="llama.cpp",
            device=kind,
            precision="float32",
            allow_tf32=False,
            weight_bytes=checkpoint.gguf.weight_bytes,
            takes_turns=False,
        )
        self._in_flight: list[Future[Vectors]] = []
        self._contexts: SimpleQueue[EmbeddingContext] = SimpleQueue()  # those that no batch has now
        for _ in range(self._lane_count):
            self._contexts.put(EmbeddingContext(self._model, 0 if on_gpu else 1))
        self._lanes: Lanes[Vectors] = Lanes(self._lane_count)
        try:
            self._facts = replace(self._facts, dimension=self._try(checkpoint))
        except BaseException:
            self.close()
            raise

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
        """Return the bytes of the weights; llama.cpp does not tell what else it holds."""
        weights = self._facts.weight_bytes
        return {"active": weights, "cached": 0, "peak": weights}

    def release_memory(self) -> None:
        """Give back memory that malloc only keeps for reuse."""
        cpu_runtime.release_memory()

    def close(self) -> None:
        """Free the contexts and the weights, once the lanes are done; the last call."""
        wait(self._in_flight)
        self._lanes.close()
        for _ in range(self._lane_count):
            self._contexts.get().close()
        del self._model

    def _try(self, checkpoint: Checkpoint) -> int:
        """Compute the vectors of a few tokens, and return their size."""
        rows = TokenRows(np.zeros((2, 2), np.int32), np.array([2, 1], np.int32), np.empty(0, np.int32))
        (vectors,) = self.start([rows]).result()
        if not np.isfinite(vectors).all():
            raise ModelLoadError(f"{checkpoint.directory} computes values that are not finite: its weights are damaged")
        return int(np.shape(vectors)[1])

    def _compute(self, rows: TokenRows) -> Vectors:
        context = self._contexts.get()
        try:
            return context.embed([ids[:length] for ids, length in zip(rows.ids, rows.lengths, strict=True)])
        finally:
            self._contexts.put(context)
