"""The part of config.json that an architecture reads, in each of the dialects it is written in."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from akidb_mlx.errors import ModelLoadError

# Bounds far above any model, so that a hostile file cannot ask for endless layers or unrepresentable arrays.
Size = Annotated[int, Field(gt=0, lt=1 << 24)]
LayerCount = Annotated[int, Field(gt=0, le=1024)]
# The name of an activation function; the plan knows those that there are.
ActivationName = Annotated[str, Field(max_length=80)]

LayerType = Literal["sliding_attention", "full_attention"]


class EncoderConfig(BaseModel):
    """The part of config.json that an architecture reads; its record decides about the other keys.

    Defaults are those of transformers' configuration classes; a key that has none here must be there.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    vocab_size: Size
    hidden_size: Size

    @property
    def reserved_positions(self) -> int:
        """Return how many of the model's positions no token ever has."""
        return 0

    @classmethod
    def keys(cls) -> frozenset[str]:
        """Return the keys of config.json that are read, under all of their names."""
        return frozenset(key for name, field in cls.model_fields.items() for key in _names(name, field))


Config = TypeVar("Config", bound=EncoderConfig)


def parse_config(kind: type[Config], config: dict[str, Any]) -> Config:
    """Check config.json against an architecture.

    Raises:
        ModelLoadError: a key is missing, of the wrong type or has a value that is not supported, or two keys that
            mean the same have different values.
    """
    for names in (_names(name, field) for name, field in kind.model_fields.items()):
        given = {name: config[name] for name in names if name in config}
        if len({repr(value) for value in given.values()}) > 1:
            shown = ", ".join(f"{name} = {reprlib.repr(value)}" for name, value in given.items())
            raise ModelLoadError(f"config.json: {shown} mean the same and differ")
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        raise describe_fault(error) from error


def describe_fault(error: ValidationError, where: str = "") -> ModelLoadError:
    """Return the error for a key of config.json that is missing or not supported; `where` is the way to it."""
    fault = error.errors()[0]
    key = where + (".".join(map(str, fault["loc"])) or "config")
    if fault["type"] == "missing":
        return ModelLoadError(f"config.json lacks {key}, which has no default")
    return ModelLoadError(f"config.json: {key} = {reprlib.repr(fault['input'])} is not supported: {fault['msg']}")


def _names(name: str, field: FieldInfo) -> list[str]:
    """Return the names of a key, most often one."""
    alias = field.validation_alias
    return [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [str(alias or name)]
