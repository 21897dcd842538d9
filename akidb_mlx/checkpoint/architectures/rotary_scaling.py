"""Rotary frequencies for texts that are longer than those of the training: the types of `rope_type` in config.json.

A type is a class: its fields are its keys, and its method is transformers' formula, in float32 where that is.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.config import Size
from akidb_mlx.errors import ModelLoadError

Frequencies = NDArray[np.float32]
# Far above any model's, so that no formula leaves the range of its numbers.
Number = Annotated[float, Field(gt=0, le=1e9)]


def plain_frequencies(theta: float, dimensions: int) -> Frequencies:
    """Return the frequencies theta^(-2i / dimensions), each the rotation of a pair of values by one position."""
    frequencies: Frequencies = np.float32(1) / _powers(theta, dimensions)
    return frequencies


class RotaryScaling(BaseModel):
    """A type that changes the frequencies of the base."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, defer_build=True)

    # Whether `original_max_position_embeddings` counts, whose default is `max_position_embeddings`.
    has_original: ClassVar[bool] = False

    @property
    def amplitude(self) -> float:
        """Return the factor of the rotated queries and keys."""
        return 1.0

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return (dimensions / 2,) the frequencies for a base and a size of head."""
        raise NotImplementedError


class LinearScaling(RotaryScaling):
    """Position interpolation (Chen et al. 2023): all positions are closer together."""

    factor: Number

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return the frequencies; see `RotaryScaling`."""
        frequencies: Frequencies = plain_frequencies(theta, dimensions) / np.float32(self.factor)
        return frequencies


class YarnScaling(RotaryScaling):
    """YaRN (Peng et al. 2023): slow frequencies are interpolated, fast ones are kept, with a ramp between them."""

    has_original: ClassVar[bool] = True

    factor: Number
    original_max_position_embeddings: Size
    attention_factor: Number | None = None
    beta_fast: Number | None = None
    beta_slow: Number | None = None
    mscale: NonNegativeFloat | None = None
    mscale_all_dim: NonNegativeFloat | None = None
    truncate: bool = True

    @property
    def amplitude(self) -> float:
        """Return the factor of the rotated queries and keys."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._amplitude(self.mscale) / self._amplitude(self.mscale_all_dim)
        return self._amplitude(1.0)

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return the frequencies; see `RotaryScaling`."""
        if theta <= 1:
            raise ModelLoadError(f"config.json: a rotary base of {theta} is not supported with rope_type 'yarn'")
        low = self._dimension(self.beta_fast or 32.0, theta, dimensions)
        high = self._dimension(self.beta_slow or 1.0, theta, dimensions)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dimensions - 1)
        if low == high:
            high += 0.001
        steps = np.arange(dimensions // 2, dtype=np.float32)
        interpolated = np.clip((steps - np.float32(low)) / np.float32(high - low), 0, 1)
        kept = np.float32(1) - interpolated
        powers = _powers(theta, dimensions)
        slow, fast = np.float32(1) / (np.float32(self.factor) * powers), np.float32(1) / powers
        frequencies: Frequencies = slow * (np.float32(1) - kept) + fast * kept
        return frequencies

    def _amplitude(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0

    def _dimension(self, turns: float, theta: float, dimensions: int) -> float:
        """Return the place among the frequencies of the one that makes so many turns within the original length."""
        ratio = self.original_max_position_embeddings / (turns * 2 * math.pi)
        return dimensions * math.log(ratio) / (2 * math.log(theta))


class Llama3Scaling(RotaryScaling):
    """Llama 3.1's: long wavelengths are interpolated, short ones are kept, with a smooth step between them."""

    has_original: ClassVar[bool] = True

    factor: Number
    low_freq_factor: Number
    high_freq_factor: Number
    original_max_position_embeddings: Size

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ModelLoadError(
                f"config.json: high_freq_factor {self.high_freq_factor} of rope_type 'llama3' must be above "
                f"low_freq_factor {self.low_freq_factor}"
            )
        return self

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return the frequencies; see `RotaryScaling`."""
        plain = plain_frequencies(theta, dimensions)
        original, low, high = self.original_max_position_embeddings, self.low_freq_factor, self.high_freq_factor
        factor = np.float32(self.factor)
        wavelengths = np.float32(2 * math.pi) / plain
        share = (np.float32(original) / wavelengths - np.float32(low)) / np.float32(high - low)
        between = (np.float32(1) - share) * plain / factor + share * plain
        long = wavelengths > np.float32(original / low)
        short = wavelengths < np.float32(original / high)
        return np.where(long, plain / factor, np.where(short, plain, between))


class ProportionalScaling(RotaryScaling):
    """Only the fastest frequencies of a head turn; the others stay at 0, which is no rotation."""

    factor: Number = 1.0
    partial_rotary_factor: Annotated[float, Field(ge=0, le=1)] = 1.0

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return the frequencies; see `RotaryScaling`."""
        turning = int(self.partial_rotary_factor * dimensions // 2)
        plain = plain_frequencies(theta, dimensions)
        kept = np.where(np.arange(dimensions // 2) < turning, plain, np.float32(0))
        frequencies: Frequencies = kept / np.float32(self.factor)
        return frequencies


class DynamicScaling(RotaryScaling):
    """Dynamic NTK: the base grows with texts beyond `max_position_embeddings`, and no text is read beyond it."""

    factor: Number

    def frequencies(self, theta: float, dimensions: int) -> Frequencies:
        """Return the frequencies; see `RotaryScaling`."""
        return plain_frequencies(theta, dimensions)


SCALINGS: dict[str, type[RotaryScaling]] = {
    "linear": LinearScaling,
    "dynamic": DynamicScaling,
    "yarn": YarnScaling,
    "llama3": Llama3Scaling,
    "proportional": ProportionalScaling,
}


def _powers(theta: float, dimensions: int) -> Frequencies:
    """Return theta^(2i / dimensions), rounded once: the float32 power of NumPy is less exact on some processors."""
    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    powers: Frequencies = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    return powers
