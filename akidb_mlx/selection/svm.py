"""Support vector machines, one against all: each label has a classifier, and the largest decision value wins."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.selection.distances import normalize
from akidb_mlx.selection.json_fields import Fields, Floats, Width
from akidb_mlx.selection.scored import ScoredLabels

KERNELS = ("Linear", "Rbf")


class _Radial(NamedTuple):
    """One RBF classifier; `vectors` are indices, since the classifiers of a file share most support vectors."""

    vectors: NDArray[np.intp]
    alpha: Floats
    gamma: float


class OneAgainstAll(ScoredLabels):
    """An SVM selector's data, and its choice. Queries are divided by their lengths first.

    Args:
        fields: the file's.
        trained: whether it must hold data.
    """

    algorithm: ClassVar[str] = "svm"

    def __init__(self, fields: Fields, *, trained: bool) -> None:
        self._model_names = fields.strings("model_names")
        if trained and not self._model_names:
            raise fields.error("model_names", "is empty, and trained is true")
        fields.choice("kernel_type", KERNELS)
        fields.number("gamma")
        width = Width()
        linear = fields.objects("linear_classifiers")
        radial = fields.objects("rbf_classifiers")
        self.names = [one.text("model_name") for one in (*linear, *radial)]
        weights = [_read_weights(one, width) for one in linear]
        self._radial, self._vectors = _read_radial(radial, width)
        self._weights = np.array(weights).reshape(len(linear), width.size)
        self._rhos = np.array([one.number("rho") for one in (*linear, *radial)])
        for one in (*linear, *radial):
            one.check_others()
        self.dimension: int | None = width.size or None

    @property
    def labels(self) -> list[str]:
        """Return the labels, each once."""
        return list(dict.fromkeys([*self._model_names, *self.names]))

    def choose(self, queries: Floats) -> list[str]:
        """Return for each query the label with the largest decision value; without classifiers the first name."""
        return super().choose(queries) if self.names else self._model_names[:1] * len(queries)

    def decide(self, queries: Floats) -> Floats:
        """Return the decision values, (queries, classifiers), those of linear classifiers first."""
        values = np.empty((len(queries), len(self.names)))
        linear = len(self._weights)
        if self.names:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                units = normalize(queries)
                values[:, :linear] = np.einsum("qd,cd->qc", units, self._weights)
                for row, unit in zip(values, units, strict=True):
                    row[linear:] = self._sum_kernels(unit)
                values -= self._rhos
        return values

    def _sum_kernels(self, unit: Floats) -> list[float]:
        differences = self._vectors - unit
        distances = np.einsum("vd,vd->v", differences, differences)
        return [float(np.add.reduce(one.alpha * np.exp(-one.gamma * distances[one.vectors]))) for one in self._radial]


def _read_weights(fields: Fields, width: Width) -> Floats:
    weights = fields.vector("weights")
    width.check(len(weights), fields.name("weights"))
    return weights


def _read_radial(classifiers: list[Fields], width: Width) -> tuple[list[_Radial], Floats]:
    """Return the RBF classifiers, and the support vectors of all of them, each once."""
    places: dict[bytes, int] = {}
    vectors: list[Floats] = []
    found = []
    for one in classifiers:
        alpha = one.vector("alpha")
        rows = one.matrix("support_vectors", width)
        if len(rows) != len(alpha):
            raise one.error("support_vectors", f"has {len(rows)} values and {one.name('alpha')} has {len(alpha)}")
        if not len(rows):
            raise one.error("support_vectors", "is empty")
        for row in rows:
            if places.setdefault(row.tobytes(), len(vectors)) == len(vectors):
                vectors.append(row)
        indices = np.array([places[row.tobytes()] for row in rows])
        found.append(_Radial(indices, alpha, one.number("gamma")))
    return found, np.array(vectors).reshape(len(vectors), width.size)
