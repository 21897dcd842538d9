"""Static models on NumPy: rows of a table are gathered and added up, which is bound by memory on any device.

They run on the CPU in float32, whatever the settings say of other models, and need no MLX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from akidb_mlx.checkpoint.static import StaticTable
from akidb_mlx.checkpoint.tensors import StoredTensor
from akidb_mlx.engine.backend import Model, ModelFacts, Step, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.vectors import Rows, TokenIds, Vectors

# Most tokens of texts that are computed together.
_TOKEN_BUDGET = 1 << 14
# Texts of more tokens are summed one by one, in blocks of so many; others together, place by place.
_LONG = 512

_Array = NDArray[np.floating[Any] | np.integer[Any]]


@dataclass(frozen=True)
class _ComputedStep(Step):
    vectors: list[Rows]

    def result(self) -> list[Rows]:
        """Return the vectors; see `Step`."""
        return self.vectors


class StaticModel(Model):
    """A table of token vectors; a text's vector is the mean of its tokens'."""

    def __init__(self, table: StaticTable) -> None:
        """Load the table.

        Raises:
            ModelLoadError: a file cannot be read, or the mapping names rows that the table does not have.
        """
        vectors = _load(table.vectors)
        mapping = None if table.mapping is None else _load(table.mapping)
        weights = None if table.weights is None else _load(table.weights).astype(np.float32)
        if mapping is not None and not (int(mapping.min()) >= 0 and int(mapping.max()) < len(vectors)):
            raise ModelLoadError(f"{table.vectors.file}: the mapping names rows that are not in the {len(vectors)}")
        if vectors.dtype == np.float64:
            vectors = vectors.astype(np.float32)
        if weights is not None and mapping is None:
            vectors, weights = vectors.astype(np.float32) * weights[:, None], None
        self._vectors, self._weights = vectors, weights
        self._mapping = None if mapping is None else mapping.astype(np.int32)
        arrays = [array for array in (self._vectors, self._mapping, self._weights) if array is not None]
        self._bytes = sum(array.nbytes for array in arrays)
        self._facts = ModelFacts(
            dimension=table.dimension,
            max_tokens=table.max_tokens,
            vocabulary_size=table.tokens,
            token_budget=_TOKEN_BUDGET,
            lanes=1,
            pipelined=False,
            bucket_lengths=False,
            shares_prefixes=False,
            backend="numpy",
            device="cpu",
            precision="float32",
            allow_tf32=False,
            weight_bytes=self._bytes,
            packed=True,
        )

    @property
    def facts(self) -> ModelFacts:
        """Return its properties."""
        return self._facts

    def start(self, batches: Sequence[TokenRows]) -> Step:
        """Compute batches; see `Model`."""
        for batch in batches:
            batch.check(self._facts)
        return _ComputedStep([self._means(batch.ids[0], batch.lengths) for batch in batches])

    def recover(self) -> None:
        """Do nothing: an error leaves nothing behind."""

    def memory(self) -> dict[str, int]:
        """Return the bytes of the table."""
        return {"active": self._bytes, "cached": 0, "peak": self._bytes}

    def release_memory(self) -> None:
        """Do nothing: no memory is kept for reuse."""

    def close(self) -> None:
        """Free the table; the last call."""
        del self._vectors, self._mapping, self._weights

    def _means(self, ids: TokenIds, lengths: TokenIds) -> Vectors:
        """Return the means (texts, dimension) of texts whose tokens are side by side in `ids`."""
        # The longest first, so that those with a token in a place are always the first ones.
        order = np.argsort(-lengths, kind="stable")
        starts, counts = (np.cumsum(lengths) - lengths)[order], lengths[order]
        sums, space = (np.empty((len(lengths), self._facts.dimension), np.float32) for _ in range(2))
        long = int(np.searchsorted(-counts, -_LONG))  # how many have more tokens
        for text in range(long):
            sums[text] = self._sum(ids[starts[text] : starts[text] + counts[text]])
        starts, short, rest = starts[long:], counts[long:], sums[long:]
        if len(short):
            self._gather(ids[starts], rest)
            holders = len(short) - np.searchsorted(short[::-1], np.arange(int(short[0])), side="right")
            for place, texts in enumerate(holders[1:].tolist(), 1):
                rest[:texts] += self._gather(ids[starts[:texts] + place], space[:texts])
        sums /= counts[:, None]
        space[order] = sums
        return space

    def _sum(self, ids: TokenIds) -> Vectors:
        """Return the sum of tokens' vectors, in blocks, since a long chain of sums would be inexact."""
        space = np.empty((min(len(ids), _LONG), self._facts.dimension), np.float32)
        blocks = [ids[start : start + _LONG] for start in range(0, len(ids), _LONG)]
        sums = np.stack([self._gather(block, space[: len(block)]).sum(axis=0) for block in blocks])
        total: Vectors = sums.sum(axis=0)
        return total

    def _gather(self, ids: TokenIds, into: Vectors) -> Vectors:
        """Write the tokens' vectors (tokens, dimension) into an array, and return it."""
        rows = ids if self._mapping is None else self._mapping[ids]
        if self._vectors.dtype == np.float32:
            # All rows are in the table; with another mode, NumPy would copy them once more.
            np.take(self._vectors, rows, axis=0, out=into, mode="clip")
        else:
            into[:] = self._vectors[rows]
        if self._weights is not None:
            into *= self._weights[ids][:, None]
        return into


def _load(tensor: StoredTensor) -> _Array:
    try:
        with safe_open(tensor.file, framework="numpy") as content:
            array: _Array = content.get_tensor(tensor.key)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{tensor.file} cannot be loaded: {error}") from error
    return array
