"""The quantisation of a checkpoint's layers, from its config.json."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.known_keys import KnownKeys, cut, honoured, is_empty
from akidb_mlx.errors import ModelLoadError

PACKING_KEYS = KnownKeys(honoured=honoured("bits group_size mode"))


class Quantization(BaseModel):
    """The packing of one layer: MLX's `bits`, `group_size` and `mode`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    bits: Literal[2, 3, 4, 5, 6, 8]
    group_size: Literal[16, 32, 64, 128]
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine"

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.mode}, group {self.group_size}"


@dataclass(frozen=True)
class QuantizationConfig:
    """The packing of every quantised layer; a layer is quantised exactly when its `scales` are stored.

    Attributes:
        default: the packing of a layer that has none of its own, or None.
        overrides: the packing of the layers that have their own; None for one that is said not to be quantised.
    """

    default: Quantization | None
    overrides: dict[str, Quantization | None]

    def of(self, layer: str) -> Quantization:
        """Return the packing of a layer that has scales.

        Raises:
            ModelLoadError: config.json has no entry for it, or says that it is not quantised.
        """
        quantization = self.overrides.get(layer, self.default)
        if quantization is None:
            fault = "says that it is not quantised" if layer in self.overrides else "has no `quantization` for it"
            raise ModelLoadError(f"{cut(layer)}.scales is stored and config.json {fault}: its bits are unknown")
        return quantization


def read_quantization(path: Path, config: dict[str, Any], architecture: Architecture) -> QuantizationConfig:
    """Read `quantization` (MLX's key), or `quantization_config` where it has the same form.

    Raises:
        ModelLoadError: an entry is not one that MLX supports.
    """
    section = config.get("quantization") or config.get("quantization_config") or {}
    if not isinstance(section, dict):
        raise ModelLoadError(f"{path}: quantization must be an object, found {reprlib.repr(section)}")
    if not is_empty(section.get("quant_method")):
        raise ModelLoadError(
            f"{path}: quantisation method {reprlib.repr(section['quant_method'])} is not MLX's; convert the model"
        )
    # Besides the global values there is an entry for each layer that differs: an object, true or false.
    general = {key: value for key, value in section.items() if _is_general(key, value)}
    layers = {key: value for key, value in section.items() if key not in general}
    default = _parse(path, "quantization", general, {}) if general.get("bits") is not None else None
    inherited = {} if default is None else {"bits": default.bits, "group_size": default.group_size}
    overrides: dict[str, Quantization | None] = {}
    for layer, value in layers.items():
        packing = _parse(path, layer, value, inherited) if isinstance(value, dict) else default if value else None
        overrides[architecture.layer_name(layer)] = packing
    return QuantizationConfig(default, overrides)


def _is_general(key: str, value: Any) -> bool:
    return key in PACKING_KEYS.honoured or not isinstance(value, (dict, bool))


def _parse(path: Path, key: str, section: Mapping[str, Any], inherited: Mapping[str, Any]) -> Quantization:
    """Read a packing; bits and group size that are null or missing are the inherited ones, as in mlx-lm's recipes."""
    PACKING_KEYS.check(path, section, f"{cut(key)}.")
    stated = {name: section[name] for name in PACKING_KEYS.honoured if section.get(name) is not None}
    try:
        return Quantization.model_validate({**inherited, **stated})
    except ValidationError as error:
        fault = error.errors()[0]
        where = f"{cut(key)}.{fault['loc'][0]}"
        if fault["type"] == "missing":
            raise ModelLoadError(f"{path}: {where} is missing") from error
        raise ModelLoadError(
            f"{path}: {where} = {reprlib.repr(fault['input'])} is not supported: {fault['msg']}"
        ) from error
