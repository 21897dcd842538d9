"""The interface between the engine and the library that computes: plain arrays in, vectors out.

The engine calls a model on one thread, the one that loaded it. A backend sees token rows, and never a call or a future.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from akidb_mlx.errors import InferenceError
from akidb_mlx.vectors import Rows, TokenIds, TokenMatrix


@dataclass(frozen=True)
class ModelFacts:
    """The properties of a loaded model that other threads may read.

    Attributes:
        dimension: size of the vectors it computes.
        max_tokens: most tokens of one sequence.
        vocabulary_size: how many tokens it has vectors for; their ids are those below.
        token_budget: most tokens that one batch should have, padding included.
        lanes: how many batches it runs side by side.
        pipelined: whether a step should be handed to the device while the one before it runs.
        bucket_lengths: whether sequences should be padded to few distinct lengths.
        shares_prefixes: whether it can compute a prefix that several sequences share once.
        backend: the library that computes: "mlx", "onnx", "llama.cpp" or "numpy".
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
        allow_tf32: whether the device rounds the factors of float32 products to TF32.
        weight_bytes: memory that its weights take.
        packed: whether it takes sequences one after another, without padding.
        ragged: whether its rows have shapes of their own, so that those of a batch are a list and no matrix.
        takes_turns: whether its steps have the device for themselves, as those of all models on MLX must.
    """

    dimension: int
    max_tokens: int
    vocabulary_size: int
    token_budget: int
    lanes: int
    pipelined: bool
    bucket_lengths: bool
    shares_prefixes: bool
    backend: str
    device: str
    precision: str
    allow_tf32: bool
    weight_bytes: int
    packed: bool = False
    ragged: bool = False
    takes_turns: bool = True


class BatchKey(NamedTuple):
    """All that the sequences of a batch have in common.

    Attributes:
        prefix: bytes of the token ids that all begin with, and that are left out of them.
        unpooled: how many tokens of each, from its beginning on, are left out of the pooling.
        route: the route that they take through the modules of the model.
        padding: the token that they are padded with, which no token sees; the model may compute a vector for it too.
        floor: the length that they are padded to at least.
    """

    prefix: bytes = b""
    unpooled: int = 0
    route: str = ""
    padding: int = 0
    floor: int = 0


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Sequences that run together, padded on the right.

    Attributes:
        ids: (rows, length) int32; padding is 0 or a token of the caller's. For a model that takes them packed:
            (1, tokens), the tokens of all rows, one row after another.
        lengths: (rows,) int32, how many tokens of each row are not padding; at least 1.
        prefix: (n,) int32, tokens that stand before those of every row; empty where there are none.
        unpooled: how many tokens of each row, from its beginning on, are left out of the pooling.
        route: the route that the rows take through the modules of the model.
        segments: (rows,) int32, how many leading tokens of each row are of the first token type, the others being of
            the second; None where all tokens of all rows are of the first.
    """

    ids: TokenMatrix
    lengths: TokenIds
    prefix: TokenIds
    unpooled: int = 0
    route: str = ""
    segments: TokenIds | None = None

    def check(self, facts: ModelFacts) -> None:
        """Refuse tokens and positions that the model has no vectors for: a device would read foreign memory for them.

        Raises:
            InferenceError: there is such a token, or a sequence is too long.
        """
        for ids in (self.ids, self.prefix):
            if ids.size and not (ids.min() >= 0 and ids.max() < facts.vocabulary_size):
                raise InferenceError(
                    f"a batch holds the tokens {ids.min()} to {ids.max()}, and the model has 0 to "
                    f"{facts.vocabulary_size - 1}"
                )
        length = int(self.lengths.max()) if facts.packed else len(self.prefix) + self.ids.shape[1]
        if length > facts.max_tokens:
            raise InferenceError(f"a batch holds sequences of {length} tokens, and the model takes {facts.max_tokens}")


class Step(Protocol):
    """Batches that were handed to the device."""

    def result(self) -> list[Rows]:
        """Wait for the device, and return the rows of each batch, neither cut nor normalised.

        Raises:
            Exception: the device could not compute them; none of them is returned then.
        """
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

    def recover(self) -> None:
        """Wait until the device has done all that it was handed, and forget the errors of it.

        Called after any error of `start` or of a step's `result`. The device may report an error late, and to whoever
        asks next, so the vectors of every step in flight are void then.
        """
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
