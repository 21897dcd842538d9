"""MPNet (Song et al. 2020): BERT whose attention scores have a bias for the distance of key and query (T5's).

One table of biases serves all layers.
"""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.backends.mlx.encoders import TokenBatch
from akidb_mlx.backends.mlx.encoders.bert import Bert
from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.mpnet import MPNetConfig

# Buckets for the keys on one side of a query: the first ones for one distance each, the others for ranges that grow
# evenly on a logarithmic scale, up to the distance from which on all keys are alike.
_BUCKETS, _SINGLE, _FAR = 16, 8, 128


class MPNet(Bert):
    """An MPNet encoder."""

    def __init__(self, args: MPNetConfig, weights: WeightReader, plan: ExecutionPlan) -> None:
        super().__init__(args, weights, plan)
        rows = args.relative_attention_num_buckets
        self._relative_bias = weights.embedding("encoder.relative_attention_bias", rows, args.heads)
        self._buckets = mx.array([_bucket(distance) for distance in range(-_FAR, _FAR + 1)])

    def _mask(self, batch: TokenBatch) -> mx.array | None:
        positions = mx.arange(batch.ids.shape[1])
        distances = mx.clip(positions[:, None] - positions, -_FAR, _FAR)  # of each key (row) from each query
        bias = self._relative_bias(self._buckets[distances + _FAR]).transpose(2, 1, 0)[None]
        return self._plan.mask(batch.mask()[:, None, None, :] if batch.padded else None, bias)


def _bucket(distance: int) -> int:
    """Return the row of the table for a key at a distance after the query, or before it where it is negative."""
    size, side = abs(distance), _BUCKETS if distance > 0 else 0
    if size < _SINGLE:
        return side + size
    # The ranges begin at 8, 8√2, 16, 16√2, …; compared by their squares, which are integers.
    passed = sum(size**2 >= _SINGLE**2 << step for step in range(1, _BUCKETS - _SINGLE))
    return side + _SINGLE + passed
