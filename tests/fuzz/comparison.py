"""The verdict on a directory, from the answer of this package and that of the reference."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

# One answer: {"refused": message}, or {"vectors": {role: [vector or {"refused": message}, …]}}.
Answer = dict[str, Any]
# Of vectors of unit length.
MIN_COSINE, MAX_DIFFERENCE = 0.9999, 1e-4

EQUAL = "equal"
TEXTS_REFUSED = "equal, some texts refused"
REFUSED = "refused"
REFERENCE_REFUSED = "only the reference refused"
ORDINARY_REFUSED = "ordinary, but refused"
DIFFERENT = "silently different"
FAILED = "failed"
KINDS = (EQUAL, TEXTS_REFUSED, REFUSED, REFERENCE_REFUSED, ORDINARY_REFUSED, DIFFERENT, FAILED)
FAULTS = (ORDINARY_REFUSED, DIFFERENT, FAILED)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison of one directory.

    Attributes:
        kind: one of `KINDS`.
        detail: the message of the refusal, or the text and the size of the difference.
    """

    kind: str
    detail: str = ""

    @property
    def cause(self) -> str:
        """Return the detail without names and numbers, so that alike ones are counted together."""
        text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\[[^\]]*\]|\{.*\}|\d+", "…", self.detail)
        return text[:100]


def compare(ours: Answer, reference: Answer, ordinary: bool) -> Verdict:
    """Return the verdict on a directory that this package did not refuse.

    Args:
        ours: the answer of this package.
        reference: that of the reference.
        ordinary: whether the directory and all texts must be taken.
    """
    if "refused" in reference:
        # Nothing vouches for an ordinary directory then.
        return Verdict(FAILED if ordinary else REFERENCE_REFUSED, f"the reference: {reference['refused']}")
    refusals: list[Verdict] = []
    for role, vectors in ours["vectors"].items():
        for index, (vector, expected) in enumerate(zip(vectors, reference["vectors"][role], strict=True)):
            where = f"input_type {role}, text {index}: "
            if isinstance(expected, dict):
                if not isinstance(vector, dict):
                    refusals.append(Verdict(REFERENCE_REFUSED, where + expected["refused"]))
            elif isinstance(vector, dict):
                refusals.append(Verdict(ORDINARY_REFUSED if ordinary else TEXTS_REFUSED, where + vector["refused"]))
            elif difference := _difference(vector, expected):
                return Verdict(DIFFERENT, where + difference)
    return min(refusals, key=lambda verdict: -KINDS.index(verdict.kind), default=Verdict(EQUAL))


def _difference(vector: list[float], expected: list[float]) -> str | None:
    """Return what two vectors of unit length differ in, or None."""
    if len(vector) != len(expected):
        return f"{len(vector)} values, expected {len(expected)}"
    first, second = np.array(vector), np.array(expected)
    cosine, largest = float(first @ second), float(np.abs(first - second).max())
    if cosine >= MIN_COSINE and largest <= MAX_DIFFERENCE:
        return None
    return f"cosine {cosine:.4f}, largest difference {largest:.1e}"
