"""A loaded model: token ids in, pooled vectors out. The lowest layer; everything here runs on the owner thread."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import cast

import mlx.core as mx
import numpy as np

from akidb_mlx.backends.mlx.encoders import Prefix, PrefixEncoder, TokenBatch, build_encoder
from akidb_mlx.backends.mlx.head import Head, RaggedHead, build_heads
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.scoring import build_token_logits
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenization.ids import table_rows
from akidb_mlx.engine.backend import Model, ModelFacts, Step, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime import allocator, cpu_runtime, device
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.vectors import Rows, TokenIds, Vectors

logger = logging.getLogger(__name__)

# How many prompts' keys and values are kept; those of 30 tokens take 3 MB in Qwen3-Embedding-0.6B.
_MAX_PREFIXES = 16


@dataclass(frozen=True)
class DeviceStep(Step):
    """Batches that were handed to the device, and the head of each."""

    vectors: list[mx.array]
    streams: list[mx.Stream]
    heads: list[Head]

    def result(self) -> list[Rows]:
        """Wait for the device, and return the rows of each batch, neither cut nor normalised.

        Raises:
            RuntimeError: the device could not compute them.
        """
        outputs = zip(self.heads, self.outputs(), strict=True)
        return [head.rows(output) if isinstance(head, RaggedHead) else output for head, output in outputs]

    def outputs(self) -> list[Vectors]:
        """Wait for the device, and return the output of each batch's head; raises what `result` does."""
        mx.eval(self.vectors)
        # `eval` may return before a failure of the device is recorded (ml-explore/mlx#4134), with arrays never written.
        for stream in self.streams:
            mx.synchronize(stream)
        return [np.array(vectors) for vectors in self.vectors]


class EmbeddingModel(Model):
    """An encoder and what follows it, on its device."""

    def __init__(self, checkpoint: Checkpoint, plan: ExecutionPlan) -> None:
        """Load the weights, and try the model on a few tokens.

        The device is held only while weights are evaluated, with pauses, and for the trial.

        Raises:
            ModelLoadError: the checkpoint does not fit its configuration, or yields something that is not finite.
            ConfigurationError: this process computes on another device.
        """
        self._claim = device.claim(plan.device)
        self._plan = plan
        try:
            self._load(checkpoint)
        except BaseException:
            self._claim.release()
            raise

    def _load(self, checkpoint: Checkpoint) -> None:
        """Load the weights, and try the model."""
        plan = self._plan
        allocator.limit_memory(plan.device)
        self._prefixes: OrderedDict[bytes, Prefix] = OrderedDict()
        # A stream has one place for an error, which whoever looks first takes away. Where two steps are in flight, each
        # has streams of its own, so that the error of one is not found by the other.
        streams = device.lane_streams(plan.device, plan.lanes * (2 if plan.pipelined else 1))
        self._streams = cycle([streams[i : i + plan.lanes] for i in range(0, len(streams), plan.lanes)])
        self._all_streams = streams
        weights = WeightReader(checkpoint, plan)
        self._encoder = build_encoder(checkpoint, weights, plan)
        self._heads = build_all_heads(checkpoint, weights, plan, self._encoder.hidden_size)
        weights.check_complete()
        weight_bytes = weights.evaluate()
        first = next(iter(self._heads.values()))
        self._facts = ModelFacts(
            dimension=first.dimension,
            max_tokens=checkpoint.max_tokens,
            vocabulary_size=table_rows(checkpoint),
            token_budget=plan.token_budget,
            lanes=plan.lanes,
            pipelined=plan.pipelined,
            bucket_lengths=plan.bucket_lengths,
            # Last-token pooling needs only later tokens, which see the prefix through its keys and values.
            shares_prefixes=isinstance(self._encoder, PrefixEncoder)
            and self._encoder.causal
            and not isinstance(first, RaggedHead)
            and all(head.pooling.modes == ("last",) for head in checkpoint.heads.values()),
            backend="mlx",
            device=plan.device_name,
            precision=plan.precision,
            allow_tf32=device.rounds_to_tf32(plan.device),
            weight_bytes=weight_bytes,
            ragged=isinstance(first, RaggedHead),
        )
        if not np.isfinite(np.concatenate([self._try(route) for route in self._heads])).all():
            raise ModelLoadError(
                f"{checkpoint.directory} computes values that are not finite in {plan.precision}: "
                "its weights are damaged, or need a wider precision"
            )

    @property
    def facts(self) -> ModelFacts:
        """Return its properties."""
        return self._facts

    def start(self, batches: Sequence[TokenRows]) -> DeviceStep:
        """Hand batches to the device, side by side, each on a stream of its own.

        Args:
            batches: at most `facts.lanes`.

        Raises:
            InferenceError: a token or a position is not in the model's tables.
        """
        for batch in batches:
            batch.check(self._facts)
        self._claim.renew()
        prefixes = [self._prefix(batch.prefix) for batch in batches]
        # The cores that lanes do not use are for the matrix products.
        cpu_runtime.set_blas_threads(max(1, cpu_runtime.cores() // len(batches)))
        streams = next(self._streams)[: len(batches)]
        vectors = []
        for stream, batch, prefix in zip(streams, batches, prefixes, strict=True):
            with mx.stream(stream):
                vectors.append(self._forward(batch, prefix))
        if self._plan.pipelined:
            mx.async_eval(vectors)  # type: ignore[no-untyped-call]
        return DeviceStep(vectors, streams, [self._heads[batch.route] for batch in batches])

    def recover(self) -> None:
        """Wait until the device has done all that it was handed, and forget the errors of it."""
        for stream in self._all_streams:
            try:
                mx.synchronize(stream)
            except RuntimeError as error:  # the place for it is free now; the step is run again
                logger.debug("an error of an earlier step: %s", error)

    def memory(self) -> dict[str, int]:
        """Return the bytes that MLX's allocator holds."""
        return allocator.memory()

    def release_memory(self) -> None:
        """Give back memory that is only kept for reuse."""
        allocator.release_memory()

    def close(self) -> None:
        """Free the weights; the last call."""
        del self._encoder, self._heads, self._prefixes
        allocator.release_memory()
        self._claim.release()

    def _try(self, route: str) -> Vectors:
        """Return the output for a few tokens that take a route."""
        lengths = np.array(self._plan.trial_lengths, np.int32)
        rows = TokenRows(np.zeros((len(lengths), lengths.max()), np.int32), lengths, np.empty(0, np.int32), route=route)
        with device_lock:
            return self.start([rows]).outputs()[0]

    def _prefix(self, ids: TokenIds) -> Prefix | None:
        """Return the keys and values of a prefix, which are computed once for as long as it is in use."""
        if not len(ids):
            return None
        key = ids.tobytes()
        if key not in self._prefixes:
            cpu_runtime.set_blas_threads(cpu_runtime.cores())
            prefix = cast("PrefixEncoder", self._encoder).prefix(mx.array(ids)[None])
            mx.eval(prefix.layers)
            mx.synchronize()
            self._prefixes[key] = prefix
            if len(self._prefixes) > _MAX_PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(key)
        return self._prefixes[key]

    def _forward(self, rows: TokenRows, prefix: Prefix | None) -> mx.array:
        """Return the output of a head for a batch, in float32, lazily."""
        padded = bool((rows.lengths < rows.ids.shape[1]).any())
        segments = None if rows.segments is None else mx.array(rows.segments)
        batch = TokenBatch(mx.array(rows.ids), mx.array(rows.lengths), padded, prefix, rows.unpooled, segments)
        return self._heads[rows.route](self._encoder, batch)


def build_all_heads(
    checkpoint: Checkpoint, weights: WeightReader, plan: ExecutionPlan, hidden_size: int
) -> Mapping[str, Head]:
    """Return the head of each route of a model of any kind, with arrays that are still lazy."""
    if (logits := build_token_logits(checkpoint, weights, hidden_size)) is not None:
        return {"": logits}
    if checkpoint.sparse is not None:
        from akidb_mlx.backends.mlx.sparse import build_sparse_heads

        return build_sparse_heads(checkpoint, hidden_size, weights, plan)
    if checkpoint.multi_vector is not None:
        from akidb_mlx.backends.mlx.token_vectors import TokenVectorsHead

        return {"": TokenVectorsHead(checkpoint.multi_vector, hidden_size, weights, plan)}
    return build_heads(checkpoint, weights, plan, hidden_size)
