"""The exact reading of an SVM file that carries scikit-learn's own arrays: SVC's votes, one against one."""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

import numpy as np

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.selection.distances import not_finite
from akidb_mlx.selection.json_fields import Fields, Floats, Width
from akidb_mlx.selection.scored import ScoredLabels
from akidb_mlx.selection.svm import KERNELS


class OneAgainstOne(ScoredLabels):
    """The data of an SVM as scikit-learn holds it. Queries are not normalised.

    Its scores are how many of the other labels each label wins against.

    Args:
        fields: the file's; the arrays are at its top or, with `format_version` 2, in `svc`.
        trained: whether it must hold data.
    """

    algorithm: ClassVar[str] = "svm"

    def __init__(self, fields: Fields, *, trained: bool) -> None:
        arrays = fields.object("svc") if fields.has("svc") else fields
        width = Width()
        self._vectors = arrays.matrix("support_vectors", width)
        self._coefficients = arrays.matrix("dual_coef", Width())
        self._intercepts = arrays.vector("intercept")
        counts = arrays.integers("n_support")
        model_names = fields.strings("model_names")
        self.names = _read_classes(arrays, model_names) if arrays.has("classes") else model_names
        self._radial = fields.choice("kernel_type", KERNELS) == "Rbf"
        self._gamma = fields.number("gamma")
        if fields.has("input_normalization"):
            fields.choice("input_normalization", ("none",))
        classes = len(self.names)
        if classes < 2:
            source = arrays.name("classes") if arrays.has("classes") else fields.name("model_names")
            raise ModelLoadError(f"{source} has {classes} values, and an SVM needs 2 or more")
        if len(counts) != classes or (counts < 0).any() or sum(counts.tolist()) != len(self._vectors):
            raise arrays.error("n_support", f"must be {classes} counts that add up to {len(self._vectors)}")
        if self._coefficients.shape != (classes - 1, len(self._vectors)):
            found = " by ".join(map(str, self._coefficients.shape))
            raise arrays.error("dual_coef", f"has {found} values, expected {classes - 1} by {len(self._vectors)}")
        if len(self._intercepts) != classes * (classes - 1) // 2:
            found = str(len(self._intercepts))
            raise arrays.error("intercept", f"has {found} values, expected {classes * (classes - 1) // 2}")
        if trained and not len(self._vectors):
            raise arrays.error("support_vectors", "is empty, and trained is true")
        ends = np.cumsum(counts).tolist()
        self._parts = [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
        # scikit-learn turns the signs of its public arrays round where there are two classes.
        self._sign = -1.0 if classes == 2 else 1.0
        self.dimension: int | None = width.size or None
        if arrays is not fields:
            arrays.check_others()

    def decide(self, queries: Floats) -> Floats:
        """Return the votes, (queries, labels)."""
        votes = np.zeros((len(queries), len(self.names)))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for number, (row, query) in enumerate(zip(votes, queries, strict=True)):
                kernels = self._kernels(query)
                for pair, (i, j) in enumerate(combinations(range(len(self.names)), 2)):
                    first, second = self._parts[i], self._parts[j]
                    decision = (
                        self._coefficients[j - 1, first] @ kernels[first]
                        + self._coefficients[i, second] @ kernels[second]
                        + self._intercepts[pair]
                    )
                    if not np.isfinite(decision):
                        raise not_finite(self.names[i], number)
                    row[i if self._sign * decision > 0 else j] += 1
        return votes

    def _kernels(self, query: Floats) -> Floats:
        if not self._radial:
            return np.asarray(self._vectors @ query, np.float64)
        differences = self._vectors - query
        return np.asarray(np.exp(-self._gamma * np.einsum("vd,vd->v", differences, differences)), np.float64)


def _read_classes(arrays: Fields, model_names: list[str]) -> list[str]:
    """Return the labels in the order of scikit-learn's classes, which are their places in `model_names`."""
    found = []
    for index, place in enumerate(arrays.integers("classes").tolist()):
        name = f"classes[{index}]"
        if not 0 <= place < len(model_names):
            raise arrays.error(name, f"is {place}, and model_names has {len(model_names)} values")
        if model_names[place] in found:
            raise arrays.error(name, f"is {place}, a label that one before it has too")
        found.append(model_names[place])
    return found
