"""The search for the bits of each layer, by the harm that few bits do to the vectors of texts.

The harm of each product and each table is measured alone, at 4 bits. At other bits it is estimated: a code's error is
proportional to the step of the grid, and the harm to its square. From 8 bits everywhere, the layer whose next step
down costs the least harm for the bytes that it saves takes that step, again and again. All of it is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.quantization.assignment import packed_bytes
from akidb_mlx.quantization.calibration import CalibrationModel, Progress
from akidb_mlx.quantization.options import BITS, affine
from akidb_mlx.quantization.source import Matrix

_MEASURED_BITS = 4
# The smallest harm that counts: below it, differences are of rounding.
_LEAST_HARM = 1e-7
# Measurements of a whole assignment in the search for a cosine.
_MAX_TRIALS = 6


@dataclass(frozen=True)
class Layer:
    """The matrices of one product, or a table: they have the same bits.

    Attributes:
        product: their names.
        matrices: those that can be packed.
        harm: loss of mean cosine when they alone have 4 bits.
    """

    product: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    harm: float

    def harm_at(self, bits: int) -> float:
        """Return the estimated loss at so many bits."""
        return self.harm * float((2**_MEASURED_BITS - 1) / (2**bits - 1)) ** 2

    def bytes_at(self, bits: int, group_size: int) -> int:
        """Return the bytes that its matrices take at so many bits."""
        return sum(packed_bytes(matrix, affine(bits, group_size)) for matrix in self.matrices)


# The bits of each layer, in the order of the layers.
Bits = tuple[int, ...]


def measure_layers(
    model: CalibrationModel, matrices: Sequence[Matrix], group_size: int, progress: Progress | None = None
) -> list[Layer]:
    """Measure the harm of each product and each table."""
    packing = affine(_MEASURED_BITS, group_size)
    found = []
    for done, product in enumerate(model.products):
        if progress is not None:
            progress(done, len(model.products))
        packable = tuple(one for one in matrices if one.layer in product and one.refusal(group_size) is None)
        if not packable:
            continue
        model.use(product, packing)
        found.append(Layer(product, packable, max(1 - model.cosine(few=True), _LEAST_HARM)))
        model.use(product, None)
    return found


def descend(layers: Sequence[Layer], group_size: int) -> list[Bits]:
    """Return the assignments of bits from 8 everywhere to 2 everywhere, each a step smaller than the one before."""
    current = [max(BITS)] * len(layers)
    path = [tuple(current)]
    while True:
        steps = []
        for place, (layer, bits) in enumerate(zip(layers, current, strict=True)):
            for lower in (below for below in BITS if below < bits):
                saved = layer.bytes_at(bits, group_size) - layer.bytes_at(lower, group_size)
                cost = layer.harm_at(lower) - layer.harm_at(bits)
                steps.append((cost / saved, place, lower))
        if not steps:
            return path
        _, place, lower = min(steps)
        current[place] = lower
        path.append(tuple(current))


def find_for_size(layers: Sequence[Layer], group_size: int, fixed_bytes: int, target: int) -> Bits:
    """Return the first assignment on the way down that is not larger than a target.

    Args:
        layers: the layers.
        group_size: that of all.
        fixed_bytes: bytes of the tensors that are not packed.
        target: bytes of all.

    Raises:
        InvalidInputError: there is none.
    """
    path = descend(layers, group_size)
    for bits in path:
        if fixed_bytes + _total_bytes(layers, bits, group_size) <= target:
            return bits
    least = fixed_bytes + _total_bytes(layers, path[-1], group_size)
    raise InvalidInputError(
        f"target_size {target} cannot be reached: 2 bits everywhere take {least} bytes, {fixed_bytes} of them for what "
        "is not packed; give more, or larger groups"
    )


def find_for_cosine(
    model: CalibrationModel,
    layers: Sequence[Layer],
    group_size: int,
    target: float,
    progress: Progress | None = None,
) -> tuple[Bits, float]:
    """Return the smallest assignment that was found to reach a mean cosine, and the cosine that it reaches.

    The first guess trusts the sum of the layers' harms; each measurement corrects it, and narrows the rest of the way.

    Raises:
        InvalidInputError: 8 bits everywhere do not reach it.
    """
    path = descend(layers, group_size)
    expected = [_total_harm(layers, bits) for bits in path]
    reached, missed = 0, len(path)
    found: float | None = None
    ratio = 1.0
    for trial in range(_MAX_TRIALS):
        if progress is not None:
            progress(trial, _MAX_TRIALS)
        guess = max((i for i, harm in enumerate(expected) if harm * ratio <= 1 - target), default=0)
        place = min(max(guess, reached + (found is not None)), missed - 1)
        if found is not None and place <= reached:
            break
        cosine = measure_bits(model, layers, path[place], group_size)
        ratio = max(1 - cosine, _LEAST_HARM) / expected[place]
        if cosine >= target:
            reached, found = place, cosine
        else:
            missed = place
        if missed == 0:
            break
    if found is None:
        best = measure_bits(model, layers, path[0], group_size)
        if best < target:
            raise InvalidInputError(
                f"target_cosine {target} cannot be reached: 8 bits everywhere give {best:.6f}; use smaller groups, or "
                "leave the model as it is"
            )
        found = best
    return path[reached], found


def measure_bits(model: CalibrationModel, layers: Sequence[Layer], bits: Bits, group_size: int) -> float:
    """Return the mean cosine of the vectors to the original's with so many bits for each layer."""
    for layer, each in zip(layers, bits, strict=True):
        model.use(layer.product, affine(each, group_size))
    return model.cosine()


def assignment_of(layers: Sequence[Layer], bits: Bits, group_size: int) -> dict[str, Quantization]:
    """Return the packing of each matrix."""
    return {
        matrix.layer: affine(each, group_size)
        for layer, each in zip(layers, bits, strict=True)
        for matrix in layer.matrices
    }


def _total_bytes(layers: Sequence[Layer], bits: Bits, group_size: int) -> int:
    return sum(layer.bytes_at(each, group_size) for layer, each in zip(layers, bits, strict=True))


def _total_harm(layers: Sequence[Layer], bits: Bits) -> float:
    return sum(layer.harm_at(each) for layer, each in zip(layers, bits, strict=True))
