"""The options of a quantisation, checked before any file is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.errors import InvalidInputError

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
Recipe = Literal["mixed-2-6", "mixed-3-4", "mixed-3-6", "mixed-4-6"]
BITS = (2, 3, 4, 5, 6, 8)
# The sizes of groups of affine packing that MLX has kernels for.
GROUP_SIZES = (32, 64, 128)
DEFAULT_BITS, DEFAULT_GROUP_SIZE = 4, 64
# The other modes have one form each: bits and group size.
FIXED: dict[Mode, tuple[int, int]] = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}


@dataclass(frozen=True)
class Options:
    """The packing that is asked for.

    Attributes:
        packing: of all matrices, or of most of them with a recipe; its group size counts in a search.
        raised: the packing of those that a recipe gives more bits; None without a recipe.
        target_size: bytes of the weights that are not to be exceeded; None for no such target.
        target_cosine: the mean cosine to the original's vectors that is to be reached; None for no such target.
    """

    packing: Quantization
    raised: Quantization | None = None
    target_size: int | None = None
    target_cosine: float | None = None

    @property
    def searches(self) -> bool:
        """Return whether the bits of each layer are to be found."""
        return self.target_size is not None or self.target_cosine is not None


def parse_options(
    bits: int | None,
    group_size: int | None,
    mode: str,
    recipe: str | None,
    target_size: int | None,
    target_cosine: float | None,
) -> Options:
    """Check options, and fill in what they leave open.

    Raises:
        InvalidInputError: one is not supported, or two exclude each other.
    """
    if mode not in get_args(Mode):
        raise InvalidInputError(f"mode must be one of {', '.join(get_args(Mode))}, found {mode!r}")
    choices = {"bits": bits, "recipe": recipe, "target_size": target_size, "target_cosine": target_cosine}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} exclude each other: give one of {', '.join(choices)}")
    if mode != "affine":
        return Options(_parse_fixed(cast("Mode", mode), group_size, choices))
    size = DEFAULT_GROUP_SIZE if group_size is None else group_size
    if size not in GROUP_SIZES:
        raise InvalidInputError(f"group_size must be one of {', '.join(map(str, GROUP_SIZES))}, found {group_size!r}")
    if recipe is not None:
        if recipe not in get_args(Recipe):
            raise InvalidInputError(f"recipe must be one of {', '.join(get_args(Recipe))}, found {recipe!r}")
        low, high = (int(part) for part in recipe.removeprefix("mixed-").split("-"))
        return Options(affine(low, size), affine(high, size))
    if target_size is not None and target_size < 1:
        raise InvalidInputError(f"target_size must be 1 byte or more, found {target_size!r}")
    if target_cosine is not None and not 0 < target_cosine < 1:
        raise InvalidInputError(f"target_cosine must lie between 0 and 1, found {target_cosine!r}")
    chosen = DEFAULT_BITS if bits is None else bits
    if chosen not in BITS:
        raise InvalidInputError(f"bits must be one of {', '.join(map(str, BITS))}, found {bits!r}")
    return Options(affine(chosen, size), None, target_size, target_cosine)


def affine(bits: int, group_size: int) -> Quantization:
    """Return an affine packing."""
    return Quantization.model_validate({"bits": bits, "group_size": group_size})


def _parse_fixed(mode: Mode, group_size: int | None, choices: dict[str, int | float | str | None]) -> Quantization:
    """Return the packing of a mode that has one form, which nothing else may contradict."""
    bits, size = FIXED[mode]
    if any(choices[name] is not None for name in ("recipe", "target_size", "target_cosine")):
        raise InvalidInputError(f"mode {mode} has {bits} bits throughout: recipes and targets need mode affine")
    if choices["bits"] not in (None, bits) or group_size not in (None, size):
        raise InvalidInputError(
            f"mode {mode} has {bits} bits and groups of {size}, found bits {choices['bits']} and group_size "
            f"{group_size}: leave them out"
        )
    return Quantization.model_validate({"bits": bits, "group_size": size, "mode": mode})
