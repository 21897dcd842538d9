"""The comparison of two models: may the vectors of one be searched with those of the other?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.fidelity.card import Cosines
from akidb_mlx.fidelity.figures import cosines, neighbour_recall
from akidb_mlx.fidelity.measuring import Measured, measure
from akidb_mlx.fidelity.texts import TextSet
from akidb_mlx.vectors import Vectors

Verdict = Literal["interchangeable", "close", "different"]

# Texts that are computed with each prompt.
_PROMPTED = 24
_ROLES = ("query", "document")


@dataclass(frozen=True)
class Thresholds:
    """The least figures of a verdict.

    Attributes:
        mean: mean cosine of the two models' vectors of one text; that of each prompt, too.
        worst: the smallest of them.
        recall: share of the neighbours that are found in both directions.
    """

    mean: float
    worst: float
    recall: float


THRESHOLDS: dict[Verdict, Thresholds] = {
    "interchangeable": Thresholds(mean=0.999, worst=0.99, recall=0.95),
    "close": Thresholds(mean=0.95, worst=0.8, recall=0.7),
}


@dataclass(frozen=True, eq=False)
class Sampled:
    """The vectors of one of two models.

    Attributes:
        measured: those of all texts.
        prompted: those of some texts by prompt or role; the model refuses one that is not here.
    """

    measured: Measured
    prompted: Mapping[str, Vectors]


@dataclass(frozen=True)
class Comparison:
    """The comparison of two models.

    Attributes:
        first: name of the first model.
        second: name of the second.
        verdict: "interchangeable": their vectors may be mixed; "close": queries by one find most of what they would
            find by the other; "different": they are of two spaces.
        differences: properties that differ, in words.
        cosine: cosines of the vectors of one text; None where the sizes differ.
        recall_at_10: by the name of the model that computes the queries, share of the ten nearest neighbours among the
            other's vectors that are those among them by the other's own query.
        prompts: mean cosine by prompt or role that both models have.
        thresholds: the least figures of each verdict.
    """

    first: str
    second: str
    verdict: Verdict
    differences: tuple[str, ...]
    cosine: Cosines | None
    recall_at_10: tuple[float, float] | None
    prompts: dict[str, float]
    thresholds: dict[Verdict, Thresholds]


def sample(embedder: Embedder, texts: TextSet) -> Sampled:
    """Compute a model's vectors of texts, and of some of them with each of its prompts and roles."""
    info = embedder.get_model_info()
    given = texts.texts[:: max(1, len(texts.texts) // _PROMPTED)]
    prompted = {}
    for name in dict.fromkeys((*_ROLES, *info["prompts"])):
        try:
            batch = embedder.embed_detailed(given, input_type=name, dimensions=info["native_dimension"])
        except InvalidInputError:  # a role that the model has no route for
            continue
        prompted[name] = np.asarray(batch.vectors, np.float32)
    return Sampled(measure(embedder, texts), prompted)


def compare(first: Sampled, second: Sampled) -> Comparison:
    """Compare two models by their vectors of the same texts."""
    one, other = first.measured, second.measured
    names = one.info["model_name"], other.info["model_name"]
    differences = _differences(first, second)
    if one.vectors.shape[1] != other.vectors.shape[1]:
        return Comparison(*names, "different", differences, None, None, {}, THRESHOLDS)
    cosine = Cosines.of(cosines(one.vectors, other.vectors))
    recalls = (
        neighbour_recall(one.vectors, other.vectors, queries_only=True),
        neighbour_recall(other.vectors, one.vectors, queries_only=True),
    )
    prompts = {
        name: float(cosines(vectors, second.prompted[name]).mean())
        for name, vectors in first.prompted.items()
        if name in second.prompted
    }
    verdict: Verdict = "different"
    least_mean = min([cosine.mean, *prompts.values()])
    for name, least in reversed(THRESHOLDS.items()):
        if least_mean >= least.mean and cosine.worst >= least.worst and min(recalls) >= least.recall:
            verdict = name
    if verdict == "interchangeable" and first.prompted.keys() != second.prompted.keys():
        verdict = "close"  # a call that names the prompt is refused by one of them
    return Comparison(*names, verdict, differences, cosine, recalls, prompts, THRESHOLDS)


def _differences(first: Sampled, second: Sampled) -> tuple[str, ...]:
    """Return in words the properties of two models that a caller would see."""
    one, other = first.measured.info, second.measured.info
    found = [
        f"{quantity}: {a} and {b}"
        for quantity, a, b in (
            ("values that the model computes", one["native_dimension"], other["native_dimension"]),
            ("values of a vector by default", one["dimension"], other["dimension"]),
            ("most tokens of a text", one["max_tokens"], other["max_tokens"]),
            ("pooling", one["pooling"], other["pooling"]),
        )
        if a != b
    ]
    for sampled, missing in ((first, second), (second, first)):
        if names := sorted(sampled.prompted.keys() - missing.prompted.keys()):
            found.append(f"prompts of {sampled.measured.info['model_name']} only: {', '.join(names)}")
    return tuple(found)
