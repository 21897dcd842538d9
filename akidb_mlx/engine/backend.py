"""The interface between the engine and the library that computes: plain arrays in, vectors out.

The engine calls a model on one thread, the one that loaded it. A backend sees token rows, and never a call or a future.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from akidb_mlx.vectors import TokenIds, TokenMatrix, Vectors


@dataclass(frozen=True)
class ModelFacts:
    """The properties of a loaded model that other threads may read.

    Attributes:
        dimension: size of the vectors it computes.
        max_tokens: most tokens of one sequence.
        token_budget: most tokens that one batch should have, padding included.
        lanes: how many batches it runs side by side.
        pipelined: whether a step should be handed to the device while the one before it runs.
        bucket_lengths: whether sequences should be padded to few distinct lengths.
        shares_prefixes: whether it can compute a prefix that several sequences share once.
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
        allow_tf32: whether the device rounds the factors of float32 products to TF32.
        weight_bytes: memory that its weights take.
    """

    dimension: int
    max_tokens: int
    token_budget: int
    lanes: int
    pipelined: bool
    bucket_lengths: bool
    shares_prefixes: bool
    device: str
    precision: str
    allow_tf32: bool
    weight_bytes: int


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Sequences that run together, padded on the right.

    Attributes:
        ids: (rows, length) int32; padding is 0.
        lengths: (rows,) int32, how many tokens of each row are not padding; at least 1.
        prefix: (n,) int32, tokens that stand before those of every row; empty where there are none.
    """

    ids: TokenMatrix
    lengths: TokenIds
    prefix: TokenIds


class Step(Protocol):
    """Batches that were handed to the device."""

    def result(self) -> list[Vectors]:
        """Wait for the device, and return (rows, dimension) float32 for each batch, neither cut nor normalised."""
        ...


class Model(Protocol):
    """A loaded model."""

    @property
    def facts(self) -> ModelFacts:
        """Return its properties."""
        ...

    def start(self, batches: Sequence[TokenRows]) -> Step:
        """Hand up to `facts.lanes` batches to the device."""
        ...

    def memory(self) -> dict[str, int]:
        """Return the bytes that the device's allocator holds."""
        ...

    def release_memory(self) -> None:
        """Give back memory that is only kept for reuse."""
        ...

    def close(self) -> None:
        """Free the weights; the last call."""
        ...
