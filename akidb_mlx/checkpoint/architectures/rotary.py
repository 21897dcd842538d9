"""The keys of config.json about rotary positions, in their newer and older forms."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.config import EncoderConfig, LayerType
from akidb_mlx.checkpoint.known_keys import KnownKeys, harmless, honoured, is_empty, only
from akidb_mlx.errors import ModelLoadError

ROTARY_ONLY = only("partial_rotary_factor", *(None, 1.0), reason="a part that is not rotated is not supported")

# The keys of an object in `rope_parameters` and of `rope_scaling`.
ROPE_KEYS = KnownKeys(
    honoured=honoured("rope_theta rope_type type"),
    only=ROTARY_ONLY | only("factor attention_factor", *(None, 1.0), reason="positions are not scaled"),
    harmless=harmless("original_max_position_embeddings", reason="is used by scaled positions only, which are refused"),
)


class RotaryConfig(EncoderConfig):
    """The keys of config.json of an architecture with rotary positions.

    Attributes:
        default_thetas: the types of layers that the architecture has, with the base of each where config.json gives
            none: transformers' defaults.
    """

    default_thetas: ClassVar[Mapping[LayerType, float]]

    rope_parameters: Any = None
    rope_scaling: Any = None
    rope_theta: Any = None

    @cached_property
    def thetas(self) -> dict[LayerType, float]:
        """Return the base of the rotary frequencies in the layers of each type."""
        return rope_thetas({name: getattr(self, name) for name in self.model_fields_set}, self.default_thetas)

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        _ = self.thetas
        return self


def rope_thetas(config: Mapping[str, Any], defaults: Mapping[LayerType, float]) -> dict[LayerType, float]:
    """Return the base of the rotary frequencies in the layers of each type.

    Newer files have `rope_parameters`, with an object for each type where an architecture has several. Older ones have
    `rope_theta`, for Gemma's sliding layers `rope_local_base_freq`, and `rope_scaling`, which may hold what
    `rope_parameters` does.

    Args:
        config: the content of config.json.
        defaults: the types that the architecture has, with the default base of each.

    Raises:
        ModelLoadError: the positions are scaled, or the keys are not supported together.
    """
    parameters, scaling = (_read_object(config, key) for key in ("rope_parameters", "rope_scaling"))
    if not is_empty(parameters) and not is_empty(scaling) and parameters != scaling:
        raise ModelLoadError(
            f"config.json: rope_scaling = {reprlib.repr(scaling)} beside rope_parameters = {reprlib.repr(parameters)} "
            "is not supported: they differ; remove the one that does not count"
        )
    name, found = ("rope_scaling", scaling) if is_empty(parameters) else ("rope_parameters", parameters)
    kinds = get_args(LayerType)
    nested = any(kind in found for kind in kinds)
    if nested and not is_empty({key: value for key, value in found.items() if key not in kinds}):
        raise ModelLoadError(
            f"config.json: {name} = {reprlib.repr(found)} is not supported: values for all layers beside objects for "
            "each type of layer"
        )
    if len(defaults) > 1 and name == "rope_parameters" and not nested and not is_empty(found):
        raise ModelLoadError(
            f"config.json: rope_parameters = {reprlib.repr(found)} is not supported: "
            f"it must hold an object for each of {', '.join(defaults)}"
        )
    thetas: dict[LayerType, float] = {}
    for kind, default in defaults.items():
        older = config.get("rope_local_base_freq" if kind == "sliding_attention" else "rope_theta", default)
        applies = nested or kind == "full_attention"
        own = (_read_object(found, kind, f"{name}.") if nested else found) if applies else {}
        thetas[kind] = _read_theta(own, f"{name}.{kind}." if nested else f"{name}.", older)
    return thetas


def _read_theta(parameters: dict[str, Any], where: str, default: Any) -> float:
    """Return the base in an object of rotary parameters, which may ask for nothing else."""
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ModelLoadError(
            f"config.json: rotary positions of type {reprlib.repr(kind)} are not supported, only 'default'"
        )
    ROPE_KEYS.check(Path("config.json"), parameters, where)
    theta = parameters.get("rope_theta", default)
    if not isinstance(theta, (int, float)) or isinstance(theta, bool) or not 0 < theta < math.inf:
        raise ModelLoadError(f"config.json: the rotary base must be a positive number, found {reprlib.repr(theta)}")
    return float(theta)


def _read_object(config: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """Return an object of config.json, an empty one for null or where it is missing."""
    found = config.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ModelLoadError(f"config.json: {where}{key} must be an object, found {reprlib.repr(found)}")
    return found
