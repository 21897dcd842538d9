"""Rotary positions: the keys of config.json about them, in their newer and older forms, and what they ask for."""

from __future__ import annotations

import math
import reprlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

from pydantic import ValidationError, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.config import EncoderConfig, LayerType, Size, describe_fault
from akidb_mlx.checkpoint.architectures.rotary_scaling import SCALINGS, DynamicScaling, RotaryScaling
from akidb_mlx.checkpoint.known_keys import KnownKeys, harmless, honoured, is_empty, only
from akidb_mlx.errors import ModelLoadError

ROTARY_ONLY = only("partial_rotary_factor", *(None, 1.0), reason="a part that is not rotated is not supported")

_SCALING_ONLY = ROTARY_ONLY | only("factor attention_factor", *(None, 1.0), reason="this rope_type does not scale")
_SCALING_HARMLESS = harmless(
    "original_max_position_embeddings max_position_embeddings", reason="says what the model was trained with"
)


@dataclass(frozen=True)
class RotaryPositions:
    """The rotation of queries and keys by their positions, in the layers of one type.

    Attributes:
        dimensions: values of a head.
        theta: base of the frequencies.
        frequencies: (dimensions / 2,) where they are not those of the base, theta^(-2i / dimensions); else None.
        amplitude: factor of the rotated queries and keys ("attention factor").
    """

    dimensions: int
    theta: float
    frequencies: tuple[float, ...] | None = None
    amplitude: float = 1.0


class RopeObject(NamedTuple):
    """An object of rotary parameters, with its base, and the way to it in config.json."""

    where: str
    content: Mapping[str, Any]


class RotaryConfig(EncoderConfig):
    """The keys of config.json of an architecture with rotary positions.

    Attributes:
        default_thetas: the types of layers that the architecture has, with the base of each where config.json gives
            none: transformers' defaults.
        older_thetas: the key of config.json that gives the base outside `rope_parameters`, by the type of layer.
        default_rope: the rotary parameters where config.json has none.
        other_rope_keys: keys of the rotary parameters that the architecture itself reads.
    """

    default_thetas: ClassVar[Mapping[LayerType, float]]
    older_thetas: ClassVar[Mapping[LayerType, str]] = {"full_attention": "rope_theta"}
    default_rope: ClassVar[Mapping[str, Any]] = {}
    other_rope_keys: ClassVar[frozenset[str]] = frozenset()

    max_position_embeddings: Size
    rope_parameters: Any = None
    rope_scaling: Any = None
    rope_theta: Any = None

    @property
    @abstractmethod
    def head_size(self) -> int:
        """Return the size of a head."""

    def head_size_of(self, kind: LayerType) -> int:
        """Return the size of a head in the layers of a type; the same in all unless an architecture says otherwise."""
        del kind
        return self.head_size

    @cached_property
    def ropes(self) -> dict[LayerType, RopeObject]:
        """Return the rotary parameters of each type of layer."""
        return self.rope_objects({name: getattr(self, name) for name in self.model_fields_set})

    @cached_property
    def rotations(self) -> dict[LayerType, RotaryPositions]:
        """Return the rotation in the layers of each type."""
        return {kind: self._positions(rope, self.head_size_of(kind)) for kind, rope in self.ropes.items()}

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        _ = self.rotations
        return self

    @classmethod
    def rope_objects(cls, config: Mapping[str, Any]) -> dict[LayerType, RopeObject]:
        """Return the rotary parameters of each type of layer.

        Newer files have `rope_parameters`, with an object for each type where an architecture has several. Older ones
        have a base for each type (`older_thetas`), and `rope_scaling`, which may hold what `rope_parameters` does, for
        the layers of full attention.

        Args:
            config: the content of config.json.

        Raises:
            ModelLoadError: the keys are not supported together.
        """
        parameters, scaling = (_read_object(config, key) for key in ("rope_parameters", "rope_scaling"))
        if not is_empty(parameters) and not is_empty(scaling) and parameters != scaling:
            raise ModelLoadError(
                f"config.json: rope_scaling = {reprlib.repr(scaling)} beside rope_parameters = "
                f"{reprlib.repr(parameters)} is not supported: they differ; remove the one that does not count"
            )
        name, found = ("rope_scaling", scaling) if is_empty(parameters) else ("rope_parameters", parameters)
        if is_empty(found):
            name, found = "rope_parameters", dict(cls.default_rope)
        kinds, several = get_args(LayerType), len(cls.default_thetas) > 1
        nested = any(kind in found for kind in kinds)
        refused = f"config.json: {name} = {reprlib.repr(found)} is not supported"
        if nested and not is_empty({key: value for key, value in found.items() if key not in kinds}):
            raise ModelLoadError(f"{refused}: values for all layers beside objects for each type of layer")
        if nested and not (several and name == "rope_parameters"):
            raise ModelLoadError(f"{refused}: it must hold values for all layers, not objects for each type of layer")
        rope_type = found.get("rope_type", "default")
        if several and found.get("type", rope_type) != rope_type:
            raise ModelLoadError(f"{refused}: its type must be called rope_type, the only name that transformers reads")
        if several and name == "rope_parameters" and not nested and not is_empty(found):
            raise ModelLoadError(f"{refused}: it must hold an object for each of {', '.join(cls.default_thetas)}")
        objects: dict[LayerType, RopeObject] = {}
        for kind, default in cls.default_thetas.items():
            applies = nested or kind == "full_attention"
            own = (_read_object(found, kind, f"{name}.") if nested else found) if applies else {}
            older = cls.older_thetas.get(kind)
            theta = default if older is None else config.get(older, default)
            objects[kind] = RopeObject(f"{name}.{kind}." if nested else f"{name}.", {"rope_theta": theta, **own})
        return objects

    def _positions(self, rope: RopeObject, size: int) -> RotaryPositions:
        """Return the rotation that an object of rotary parameters asks for."""
        theta, kind = rope.content["rope_theta"], rope.content.get("rope_type", rope.content.get("type", "default"))
        scaling = SCALINGS.get(kind) if isinstance(kind, str) else None
        if scaling is None and kind != "default":
            raise ModelLoadError(
                f"config.json: rotary positions of type {reprlib.repr(kind)} are not supported, only default, "
                f"{', '.join(SCALINGS)}"
            )
        _rope_keys(scaling, self.other_rope_keys).check(Path("config.json"), rope.content, rope.where)
        if not isinstance(theta, (int, float)) or isinstance(theta, bool) or not 0 < theta < math.inf:
            raise ModelLoadError(f"config.json: the rotary base must be a positive number, found {reprlib.repr(theta)}")
        if size % 2:
            raise ModelLoadError(f"config.json: heads of {size} values cannot be rotated in pairs")
        if scaling is DynamicScaling and "max_position_embeddings" not in self.model_fields_set:
            raise ModelLoadError("config.json lacks max_position_embeddings, which rope_type 'dynamic' needs")
        if len(self.default_thetas) > 1 and rope.content.get("truncate") is False:
            raise ModelLoadError(
                f"config.json: {rope.where}truncate = False is not supported: transformers does not read it there"
            )
        if scaling is None:
            return RotaryPositions(size, float(theta))
        parameters = dict(rope.content)
        if scaling.has_original:
            parameters.setdefault("original_max_position_embeddings", self.max_position_embeddings)
        return _scaled(scaling, parameters, rope.where, float(theta), size)


def _scaled(
    scaling: type[RotaryScaling], parameters: Mapping[str, Any], where: str, theta: float, size: int
) -> RotaryPositions:
    try:
        scaled = scaling.model_validate(parameters)
    except ValidationError as error:
        raise describe_fault(error, where) from error
    frequencies = scaled.frequencies(theta, size)
    return RotaryPositions(size, theta, tuple(map(float, frequencies)), scaled.amplitude)


def _rope_keys(scaling: type[RotaryScaling] | None, others: frozenset[str]) -> KnownKeys:
    """Return the keys that an object of rotary parameters may hold."""
    read = honoured("rope_theta rope_type type") | others
    if scaling is not None:
        read |= scaling.model_fields.keys()
    limited = {key: rule for key, rule in _SCALING_ONLY.items() if key not in read}
    return KnownKeys(read, limited, {key: reason for key, reason in _SCALING_HARMLESS.items() if key not in read})


def _read_object(config: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """Return an object of config.json, an empty one for null or where it is missing."""
    found = config.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ModelLoadError(f"config.json: {where}{key} must be an object, found {reprlib.repr(found)}")
    return found
