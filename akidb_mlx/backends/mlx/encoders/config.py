"""The part of config.json that encoders read, in each of the dialects it is written in."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from akidb_mlx.checkpoint.config_keys import ROPE_KEYS
from akidb_mlx.checkpoint.known_keys import is_empty
from akidb_mlx.errors import ModelLoadError

# Bounds far above any model, so that a hostile file cannot ask for endless layers or unrepresentable arrays.
Size = Annotated[int, Field(gt=0, lt=1 << 24)]
LayerCount = Annotated[int, Field(gt=0, le=1024)]
# The name of an activation function; the plan knows those that there are.
ActivationName = Annotated[str, Field(max_length=80)]

LayerType = Literal["sliding_attention", "full_attention"]


class EncoderConfig(BaseModel):
    """The part of config.json that an architecture reads; `checkpoint.config_keys` decides about other keys.

    Defaults are those of transformers' configuration classes; a key that has none here must be there.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


Config = TypeVar("Config", bound=EncoderConfig)


def parse_config(kind: type[Config], config: dict[str, Any]) -> Config:
    """Check config.json against an architecture.

    Raises:
        ModelLoadError: a key is missing, of the wrong type or has a value that is not supported, or two keys that
            mean the same have different values.
    """
    for names in _synonyms(kind):
        given = {name: config[name] for name in names if name in config}
        if len({repr(value) for value in given.values()}) > 1:
            shown = ", ".join(f"{name} = {reprlib.repr(value)}" for name, value in given.items())
            raise ModelLoadError(f"config.json: {shown} mean the same and differ")
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "config"
        if fault["type"] == "missing":
            raise ModelLoadError(f"config.json lacks {key}, which has no default") from error
        found = reprlib.repr(fault["input"])
        raise ModelLoadError(f"config.json: {key} = {found} is not supported: {fault['msg']}") from error


def check_layer_types(types: Sequence[LayerType] | None, layers: int) -> None:
    """Check that config.json gives every layer a type, or none.

    Raises:
        ModelLoadError: it does not.
    """
    if types is not None and len(types) != layers:
        raise ModelLoadError(f"config.json: {len(types)} layer_types for {layers} layers")


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


def _synonyms(kind: type[EncoderConfig]) -> list[list[str]]:
    """Return the names of each key that has several."""
    aliases = [field.validation_alias for field in kind.model_fields.values()]
    return [[str(name) for name in alias.choices] for alias in aliases if isinstance(alias, AliasChoices)]
