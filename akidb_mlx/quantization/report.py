"""The report of a quantisation, for a person and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from akidb_mlx.fidelity.card import FidelityCard, RerankerCard


@dataclass(frozen=True)
class QuantizationReport:
    """The outcome of a quantisation.

    Attributes:
        directory: the quantised model.
        original_bytes: bytes of the original's files of weights.
        weight_bytes: bytes of its own.
        bits_per_weight: bits that a number of a packed matrix takes, scales and biases included.
        packings: how many matrices have each packing.
        kept: the matrices that stay as they are, with the reason.
        calibration_texts: how many texts it was calibrated on.
        calibration_cosine: mean cosine to the original's vectors of these texts that the search measured, each number
            packed by itself; None where there was no search. The fidelity card has what was reached.
        card: the fidelity card; None where there is none.
    """

    directory: Path
    original_bytes: int
    weight_bytes: int
    bits_per_weight: float
    packings: dict[str, int]
    kept: dict[str, str]
    calibration_texts: int = 0
    calibration_cosine: float | None = None
    card: FidelityCard | RerankerCard | None = None

    def plain(self) -> dict[str, Any]:
        """Return the report as plain types."""
        card = None if self.card is None else self.card.plain()
        return {**vars(self), "directory": str(self.directory), "card": card}
