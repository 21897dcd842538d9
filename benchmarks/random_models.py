"""The cache of models with random weights, which measure the speed of a shape without its download."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DIRECTORY = Path.home() / ".cache" / "akidb-bench"


def ensure(name: str, write: Callable[[Path], None]) -> Path:
    """Return the directory of a model, which `write` makes first if it is absent."""
    directory = _DIRECTORY / name
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
            made = Path(folder) / name
            write(made)
            made.rename(directory)
    return directory


class RandomWeights:
    """Random numbers, scaled so that rounding errors stay as small as in a trained model."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(20)

    def matrix(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Return a matrix with values of about 0.02."""
        values: NDArray[np.float32] = self._random.standard_normal((rows, columns), np.float32)
        values *= np.float32(0.02)
        return values

    def norm(self, size: int) -> NDArray[np.float32]:
        """Return the weight of a norm, with values of about 1."""
        return 1 + self._random.standard_normal(size, np.float32) * np.float32(0.1)
