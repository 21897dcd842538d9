"""A model that ONNX Runtime computes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from akidb_mlx.backends.lanes import LaneModel
from akidb_mlx.backends.onnx.head import TokenHead
from akidb_mlx.backends.onnx.inspection import inspect
from akidb_mlx.backends.onnx.runtime import find_provider, open_session, shorten
from akidb_mlx.backends.onnx.signature import read_signature
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenization.ids import table_rows
from akidb_mlx.engine.backend import ModelFacts, TokenRows
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName, Precision
from akidb_mlx.vectors import Vectors

# Most tokens in one batch; larger ones outgrow the caches of a CPU core (docs/performance.md).
_TOKEN_BUDGET = {"cpu": 256, "gpu": 8192}
_MAX_LANES = 8
# The entry of a file's metadata that says whether its vectors have length 1, so that no call could have them otherwise.
_NORMALIZED = "akidb.normalized"


class OnnxModel(LaneModel):
    """A session of ONNX Runtime, which each core runs a batch of its own on."""

    def __init__(
        self, checkpoint: Checkpoint, file: Path, device: DeviceName, precision: Precision, token_budget: int | None
    ) -> None:
        """Load a file, and try the model on a few tokens.

        Args:
            checkpoint: the tokenizer's limits, the pooling and the modules after it.
            file: the ONNX file.
            device: where it runs; "auto" is the CPU.
            precision: the one that the file must have; "auto" takes any.
            token_budget: most tokens in one batch; None for the device's default.

        Raises:
            ModelLoadError: the file is refused, or does not fit the checkpoint.
            ConfigurationError: ONNX Runtime is not installed or has no such device, or the file has another precision.
        """
        provider = find_provider(device)
        inspected = inspect(file)
        if inspected.metadata.get(_NORMALIZED) == "true":
            raise ModelLoadError(f"{file} was exported with --normalize, for other programs: export it without")
        if precision not in ("auto", inspected.precision):
            raise ConfigurationError(
                f"precision is {precision}, and the weights of {file} are {inspected.precision}: name another file "
                "with onnx_file, or use precision auto or backend mlx"
            )
        kind = "gpu" if device == "gpu" else "cpu"
        lanes = min(cpu_runtime.cores(), _MAX_LANES) if kind == "cpu" else 1
        self._file = file
        self._session = open_session(file, provider, threads=1 if kind == "cpu" else 0)
        heads = list(checkpoint.heads.values())
        self._signature = read_signature(
            file,
            self._session,
            tokens=len(set(heads)) > 1 or not all(head.pooling.include_prompt for head in heads),
            positions=not checkpoint.encoder_config.reserved_positions,
        )
        self._heads: dict[str, TokenHead] = {}
        facts = ModelFacts(
            dimension=0,
            max_tokens=checkpoint.max_tokens,
            vocabulary_size=table_rows(checkpoint),
            token_budget=token_budget or _TOKEN_BUDGET[kind],
            lanes=lanes,
            pipelined=True,  # so that a lane whose batch was short does not wait for the other
            bucket_lengths=kind == "gpu",
            shares_prefixes=False,
            backend="onnx",
            device=kind,
            precision=inspected.precision,
            allow_tf32=False,
            weight_bytes=inspected.weight_bytes,
            takes_turns=False,
        )
        super().__init__(facts)
        self._try_out(partial(self._try, checkpoint))

    def _try(self, checkpoint: Checkpoint) -> int:
        """Make the heads, compute the vectors of a few tokens, and return their size."""
        rows = TokenRows(np.zeros((2, 2), np.int32), np.array([2, 1], np.int32), np.empty(0, np.int32))
        output = self._run(rows)
        if output.ndim != (2 if self._signature.pooled else 3) or output.shape[0] != 2:
            raise ModelLoadError(f"{self._file}: the output {self._signature.output} has the shape {output.shape}")
        if not self._signature.pooled:
            self._heads = {
                route: TokenHead(head, checkpoint.tensors, output.shape[-1]) for route, head in checkpoint.heads.items()
            }
        vectors = [self._finish(output, replace(rows, route=route)) for route in checkpoint.heads]
        sizes = {found.shape[1] for found in vectors}
        if len(sizes) > 1:
            raise ModelLoadError(f"{self._file}: the vectors of its routes have different sizes ({sorted(sizes)})")
        if not np.isfinite(vectors).all():
            raise ModelLoadError(f"{self._file} computes values that are not finite: its weights are damaged")
        return int(sizes.pop())

    def _free(self) -> None:
        del self._session

    def _compute(self, rows: TokenRows) -> Vectors:
        return self._finish(self._run(rows), rows)

    def _run(self, rows: TokenRows) -> Vectors:
        """Return the output for a batch, in float32."""
        if not self._signature.masks and (rows.lengths < rows.ids.shape[1]).any():
            return self._run_apart(rows)
        try:
            (output,) = self._session.run([self._signature.output], self._signature.feed(rows))
        except Exception as error:
            # Its exceptions have no common class but this one.
            raise RuntimeError(f"ONNX Runtime: {shorten(error)}") from error
        vectors: Vectors = output.astype(np.float32, copy=False)
        return vectors

    def _run_apart(self, rows: TokenRows) -> Vectors:
        """Return the output for a batch whose texts run one by one, as the model cannot be told of padding."""
        outputs = []
        for ids, length in zip(rows.ids, rows.lengths, strict=True):
            alone = replace(rows, ids=ids[None, :length], lengths=np.array([length], np.int32))
            output = self._run(alone)
            padding = [(0, 0)] * output.ndim
            if not self._signature.pooled:
                padding[1] = (0, rows.ids.shape[1] - int(length))
            outputs.append(np.pad(output, padding))
        return np.concatenate(outputs)

    def _finish(self, output: Vectors, rows: TokenRows) -> Vectors:
        return output if self._signature.pooled else self._heads[rows.route](output, rows)
