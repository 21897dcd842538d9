"""Qwen2 (and 2.5), and the windows that it shares with Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import LayerType, Size
from akidb_mlx.checkpoint.architectures.decoder import DecoderConfig, DerivedHeads
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY

# With `use_sliding_window` only; transformers forgets any window otherwise.
_DEFAULT_WINDOW = 4096


class QwenConfig(DecoderConfig):
    """The keys of config.json that Qwen2 and Qwen3 have: a window in the layers from `max_window_layers` on."""

    default_thetas: ClassVar[Mapping[LayerType, float]] = {"full_attention": 1e4}

    max_position_embeddings: Size = 32_768
    use_sliding_window: bool | None = False
    sliding_window: Size | None = None
    max_window_layers: int = Field(28, ge=0, lt=1 << 24)

    @property
    def window(self) -> int | None:
        """Return the sliding window, which counts only with `use_sliding_window`."""
        if not self.use_sliding_window:
            return None
        return self.sliding_window if "sliding_window" in self.model_fields_set else _DEFAULT_WINDOW

    @property
    def default_types(self) -> list[LayerType]:
        """Return the type of each layer where config.json does not list them."""
        full = self.layers if self.window is None else min(self.layers, self.max_window_layers)
        return ["full_attention" if layer < full else "sliding_attention" for layer in range(self.layers)]


class Qwen2Config(QwenConfig, DerivedHeads):
    """The keys of config.json that are read."""

    @property
    def attention_biases(self) -> tuple[bool, bool]:
        """Return whether the projections of attention have biases; see `DecoderConfig`."""
        return True, False


QWEN2 = Architecture(
    encoder="decoder:Decoder",
    config=Qwen2Config,
    only=ONLY | ROTARY_ONLY,
    harmless=HARMLESS,
    language_head="lm_head",
)
