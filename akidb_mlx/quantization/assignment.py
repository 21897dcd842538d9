"""The packing of each layer: one for all, or more bits for those where a recipe expects the most harm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.quantization.options import Options

if TYPE_CHECKING:
    from akidb_mlx.quantization.source import Matrix

# The packing of each layer by its name; a layer that is not there stays as it is.
Assignment = Mapping[str, Quantization]

_NUMBER = re.compile(r"\.(\d+)\.")


def assign(matrices: Sequence[Matrix], options: Options) -> dict[str, Quantization]:
    """Return the packing of each matrix that can be packed, without a search."""
    packable = [matrix for matrix in matrices if matrix.refusal(options.packing.group_size) is None]
    assignment = {matrix.layer: options.packing for matrix in packable}
    if options.raised is not None:
        assignment |= dict.fromkeys(_raised(packable), options.raised)
    return assignment


def _raised(matrices: Sequence[Matrix]) -> list[str]:
    """Return the layers that a recipe gives more bits.

    These are, in the first and the last eighth of the blocks and in every third between (as mlx-lm's recipes choose),
    the products with the values of attention and those that narrow; and all that is in no block but a table.
    """
    blocks = 1 + max((number for matrix in matrices if (number := _block(matrix.layer)) is not None), default=-1)
    eighth = blocks // 8
    found = []
    for matrix in matrices:
        number = _block(matrix.layer)
        if number is None:
            if matrix.rows <= matrix.columns * 8:  # a table has many more entries than values
                found.append(matrix.layer)
            continue
        chosen = number < eighth or number >= blocks - eighth or (number - eighth) % 3 == 2
        if chosen and (len(matrix.product) == 3 or matrix.columns > matrix.rows):
            found.append(matrix.layer)
    return found


def _block(layer: str) -> int | None:
    """Return the number of the block that a layer is in; None for one outside."""
    number = _NUMBER.search(layer)
    return None if number is None else int(number[1])


def packed_bytes(matrix: Matrix, packing: Quantization) -> int:
    """Return how many bytes a packed matrix takes."""
    groups = math.ceil(matrix.size / packing.group_size)
    parameters = 4 if packing.mode == "affine" else 1  # two numbers of two bytes, or one of a byte
    return matrix.size * packing.bits // 8 + groups * parameters
