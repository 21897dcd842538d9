"""An embedding model that llama.cpp computes."""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue

import numpy as np

from akidb_mlx.backends.lanes import LaneModel
from akidb_mlx.backends.llama_cpp.context import EmbeddingContext
from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf
from akidb_mlx.backends.llama_cpp.vocabulary import Vocabulary
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.engine.backend import ModelFacts, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName
from akidb_mlx.vectors import Vectors

# Most tokens in one batch.
_TOKEN_BUDGET = {"cpu": 512, "gpu": 4096}
_MAX_LANES = 8


class LlamaCppModel(LaneModel):
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
        facts = ModelFacts(
            dimension=0,
            max_tokens=checkpoint.max_tokens,
            vocabulary_size=Vocabulary(self._model).size,
            token_budget=token_budget or _TOKEN_BUDGET[kind],
            lanes=1 if on_gpu else min(cpu_runtime.cores(), _MAX_LANES),
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
        self._contexts: SimpleQueue[EmbeddingContext] = SimpleQueue()  # those that no batch has now
        for _ in range(facts.lanes):
            self._contexts.put(EmbeddingContext(self._model, 0 if on_gpu else 1))
        super().__init__(facts)
        self._try_out(partial(self._try, checkpoint))

    def _try(self, checkpoint: Checkpoint) -> int:
        """Compute the vectors of a few tokens, and return their size."""
        rows = TokenRows(np.zeros((2, 2), np.int32), np.array([2, 1], np.int32), np.empty(0, np.int32))
        (vectors,) = self.start([rows]).result()
        if not np.isfinite(vectors).all():
            raise ModelLoadError(f"{checkpoint.directory} computes values that are not finite: its weights are damaged")
        return int(np.shape(vectors)[1])

    def _free(self) -> None:
        for _ in range(self._facts.lanes):
            self._contexts.get().close()
        del self._model

    def _compute(self, rows: TokenRows) -> Vectors:
        context = self._contexts.get()
        try:
            return context.embed([ids[:length] for ids, length in zip(rows.ids, rows.lengths, strict=True)])
        finally:
            self._contexts.put(context)
