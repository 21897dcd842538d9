"""The quantisation of a checkpoint's layers, from its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from akidb_mlx.checkpoint.architectures import Architecture
from akidb_mlx.errors import ModelLoadError


class Quantization(BaseModel):
    """The packing of one layer: MLX's `bits`, `group_size` and `mode`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

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
        overrides: the packing of the layers that have their own.
    """

    default: Quantization | None
    overrides: dict[str, Quantization]

    def of(self, layer: str) -> Quantization:
        """Return the packing of a layer that has scales.

        Raises:
            ModelLoadError: config.json has no entry for it.
        """
        quantization = self.overrides.get(layer, self.default)
        if quantization is None:
            raise ModelLoadError(
                f"{layer}.scales is stored and config.json has no `quantization` for it: its bits are unknown"
            )
        return quantization


def read_quantization(path: Path, config: dict[str, Any], architecture: Architecture) -> QuantizationConfig:
    """Read `quantization` (MLX's key), or `quantization_config` where it has the same form.

    Raises:
        ModelLoadError: an entry is not one that MLX supports.
    """
    section = config.get("quantization") or config.get("quantization_config") or {}
    if not isinstance(section, dict):
        raise ModelLoadError(f"{path}: quantization must be an object, found {section!r}")
    if "quant_method" in section:
        raise ModelLoadError(f"{path}: quantisation method {section['quant_method']!r} is not MLX's; convert the model")
    default = _parse(path, "quantization", section) if "bits" in section else None
    # An override that is `false` means an unquantised layer, which is known from its missing scales.
    overrides = {
        architecture.tensor_name(layer): _parse(path, layer, value)
        for layer, value in section.items()
        if isinstance(value, dict)
    }
    return QuantizationConfig(default, overrides)


def _parse(path: Path, key: str, section: dict[str, Any]) -> Quantization:
    try:
        return Quantization.model_validate(section)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, (key, *fault["loc"])))
        raise ModelLoadError(f"{path}: {where} = {fault['input']!r} is not supported: {fault['msg']}") from error
