"""The plan of a language model: every choice of it that depends on the device."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from akidb_mlx.runtime.device import find_device
from akidb_mlx.settings import DeviceName

# Tokens of a prompt that a language model reads in one turn on the device: a fraction of a second.
_PREFILL_TOKENS = {"cpu": 64, "gpu": 512}


@dataclass(frozen=True)
class GenerationPlan:
    """The way that a language model runs on a device.

    Attributes:
        device: the device it runs on.
        dequantized: whether its weights are dequantised once, at load, to float32; MLX's quantised and half-precision
            products are 30 to 1000 times slower than that on a CPU. A GPU takes them as they are.
        prefill_tokens: how many tokens of a prompt are read in one turn.
    """

    device: mx.Device
    dequantized: bool
    prefill_tokens: int


def generation_plan(device: DeviceName) -> GenerationPlan:
    """Choose how a language model runs; "auto" takes a GPU where there is one.

    Raises:
        ConfigurationError: there is no GPU.
    """
    target = find_device(device)
    name = str(target.type.name)
    return GenerationPlan(device=target, dequantized=name == "cpu", prefill_tokens=_PREFILL_TOKENS[name])
