"""The part of config.json that encoders read, in each of the dialects it is written in."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from akidb_mlx.errors import ModelLoadError

# Bounds far above any model, so that a hostile file cannot ask for endless layers or unrepresentable arrays.
Size = Annotated[int, Field(gt=0, lt=1 << 24)]
LayerCount = Annotated[int, Field(gt=0, le=1024)]


class EncoderConfig(BaseModel):
    """The part of config.json that an architecture reads; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Config = TypeVar("Config", bound=EncoderConfig)


def parse_config(kind: type[Config], config: dict[str, Any]) -> Config:
    """Check config.json against an architecture.

    Raises:
        ModelLoadError: a key is missing, of the wrong type or has a value that is not supported.
    """
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "config"
        raise ModelLoadError(f"config.json: {key} = {fault['input']!r} is not supported: {fault['msg']}") from error


def rope_theta(config: dict[str, Any], layer_type: str, default: float) -> float:
    """Return the base of the rotary frequencies in the layers of one type.

    Newer files have `rope_parameters`, one object or one for each layer type. Older ones have `rope_theta`, for Gemma's
    sliding layers `rope_local_base_freq`, and `rope_scaling`.

    Raises:
        ModelLoadError: the positions are scaled in a way that is not supported.
    """
    parameters = config.get("rope_parameters") or {}
    if isinstance(parameters, dict) and isinstance(parameters.get(layer_type), dict):
        parameters = parameters[layer_type]
    scaling = parameters or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else scaling
    if kind != "default":
        raise ModelLoadError(f"config.json: rotary positions of type {kind!r} are not supported, only 'default'")
    local = config.get("rope_local_base_freq") if layer_type == "sliding_attention" else None
    theta = parameters.get("rope_theta") or local
    if theta is None:
        theta = default if layer_type == "sliding_attention" else config.get("rope_theta", default)
    if not isinstance(theta, (int, float)) or theta <= 0:
        raise ModelLoadError(f"config.json: the rotary base must be a positive number, found {theta!r}")
    return float(theta)
