"""The encoders, one architecture a file; each turns token ids into token vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

import mlx.core as mx

from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.architectures.config import EncoderConfig
from akidb_mlx.checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prefix:
    """The keys and values of tokens that several texts begin with, in a causal encoder.

    Attributes:
        length: how many tokens.
        layers: for each layer, their rotated keys and their values, each (1, key heads, length, head size).
    """

    length: int
    layers: Sequence[tuple[mx.array, mx.array]]


@dataclass(frozen=True)
class TokenBatch:
    """Texts of similar length, padded on the right.

    Attributes:
        ids: (batch, length) int32.
        lengths: (batch,) int32, tokens of each text before the padding.
        padded: whether any text is shorter than `length`.
        prefix: the tokens before `ids`, the same for all texts; None for none.
        unpooled: how many tokens of each text, from its beginning on, are left out of the pooling.
        segments: (batch,) int32, how many leading tokens of each text are of the first token type, the others being of
            the second; None where all are of the first.
    """

    ids: mx.array
    lengths: mx.array
    padded: bool
    prefix: Prefix | None = None
    unpooled: int = 0
    segments: mx.array | None = None

    def mask(self) -> mx.array:
        """Return (batch, length) bool: True where a token is not padding."""
        return mx.arange(self.ids.shape[1]) < self.lengths[:, None]

    def type_ids(self) -> mx.array:
        """Return the token types; one number where all tokens are of the first type, as in a single text."""
        if self.segments is None:
            return mx.array([0])
        return (mx.arange(self.ids.shape[1]) >= self.segments[:, None]).astype(mx.int32)


class Encoder(Protocol):
    """An architecture.

    Attributes:
        hidden_size: size of a token vector.
    """

    hidden_size: int

    def __call__(self, batch: TokenBatch, token_positions: mx.array | None = None) -> mx.array:
        """Compute token vectors.

        Args:
            batch: the tokens.
            token_positions: (batch,) int32, for each text the position of the one token whose vector is wanted; None
                for all tokens.

        Returns:
            (batch, length, hidden_size), or (batch, 1, hidden_size) with `token_positions`. Vectors of padding mean
            nothing.
        """
        ...


@runtime_checkable
class PrefixEncoder(Encoder, Protocol):
    """An encoder that can share the computation of a prefix between texts.

    Attributes:
        causal: whether no token sees those after it; a prefix must not be shared otherwise.
    """

    causal: bool

    def prefix(self, ids: mx.array) -> Prefix:
        """Compute the keys and values of tokens (1, length) that texts begin with."""
        ...


def build_encoder(checkpoint: Checkpoint, weights: WeightReader, plan: ExecutionPlan) -> Encoder:
    """Build the encoder of a checkpoint's architecture, with arrays that are still lazy.

    Raises:
        ModelLoadError: config.json does not describe a model that is supported.
    """
    module, _, name = checkpoint.architecture.encoder.partition(":")
    encoder: Callable[[EncoderConfig, WeightReader, ExecutionPlan], Encoder] = getattr(
        import_module(f"{__name__}.{module}"), name
    )
    return encoder(checkpoint.encoder_config, weights, plan)
