"""The fit of each kind of selector with scikit-learn, and its exact form in the exchange format.

A function fits the queries of `Outcomes` and returns the fields of the file. scikit-learn's own predictions and the
choices of the file are the same; the estimators are returned too, for that to be checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import ConfigurationError, InvalidInputError
from akidb_mlx.selection.distances import normalize
from akidb_mlx.selection.json_fields import Floats
from akidb_mlx.selection.outcomes import Outcomes

Parameters = dict[str, Any]


class Fitted(NamedTuple):
    """A fitted selector.

    Attributes:
        fields: those of its file that depend on the kind.
        estimators: of scikit-learn; none for a KNN, and for an SVM one for each label.
    """

    fields: dict[str, Any]
    estimators: list[Any]


def check_scikit_learn() -> None:
    """Import scikit-learn.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"training needs scikit-learn, which cannot be imported ({error}): run `pip install 'akidb-mlx[selection]'`"
        ) from error


@contextmanager
def reproducible() -> Iterator[None]:
    """Have scikit-learn compute on one thread, whose sums have one order, and say nothing of bounded iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def knn_candidates(outcomes: Outcomes) -> list[Parameters]:
    """Return the numbers of neighbours to try; where queries have several records each, multiples of how many."""
    each = max(1, round(len(outcomes.records) / len(outcomes.features)))
    return [{"k": k * each} for k in (5, 1, 3, 9, 15, 25) if k * each <= len(outcomes.records)] or [{"k": 1}]


def fit_knn(outcomes: Outcomes, parameters: Parameters, seed: int) -> Fitted:
    """Return a KNN of all records: each is an example with its quality and latency."""
    del seed
    order = outcomes.timed_first  # the format has no other way to leave a time out
    records = [outcomes.records[index] for index in order]
    fields = {
        "k": parameters["k"],
        "embeddings": outcomes.features[outcomes.query_of[order]].tolist(),
        "labels": [record.model_name for record in records],
        "qualities": outcomes.qualities[order].tolist(),
    }
    if latencies := [record.latency for record in records if record.latency is not None]:
        fields["latencies"] = latencies
    return Fitted(fields, [])


def kmeans_candidates(outcomes: Outcomes) -> list[Parameters]:
    """Return the numbers of clusters to try."""
    most = len(np.unique(outcomes.features, axis=0))
    counts = [len(outcomes.labels) * factor for factor in (1, 2, 4, 8)]
    return [{"num_clusters": count} for count in dict.fromkeys(min(count, most) for count in counts)]


def fit_kmeans(outcomes: Outcomes, parameters: Parameters, seed: int) -> Fitted:
    """Return clusters of the queries; the label of each is the one with the best mean worth in it."""
    from sklearn.cluster import KMeans

    count = min(parameters["num_clusters"], len(np.unique(outcomes.features, axis=0)))
    estimator = KMeans(count, n_init=4, random_state=seed).fit(outcomes.features)
    clusters = estimator.predict(outcomes.features)
    labels = [outcomes.labels[best_label(outcomes.values[clusters == one], outcomes.values)] for one in range(count)]
    fields = {"num_clusters": count, "centroids": estimator.cluster_centers_.tolist(), "cluster_models": labels}
    return Fitted(fields, [estimator])


def best_label(values: Floats, otherwise: Floats) -> int:
    """Return the label with the best mean worth among those that were tried, of equal ones the first."""
    rows = values if len(values) else otherwise
    tried = ~np.isnan(rows)
    means = np.nansum(rows, axis=0) / np.maximum(tried.sum(axis=0), 1)
    return int(np.argmax(np.where(tried.any(axis=0), means, -np.inf)))


def svm_candidates(outcomes: Outcomes) -> list[Parameters]:
    """Return the kernels and penalties to try."""
    del outcomes
    return [{"kernel": "rbf", "C": 1.0}, {"kernel": "rbf", "C": 10.0}, {"kernel": "linear", "C": 1.0}]


def fit_svm(outcomes: Outcomes, parameters: Parameters, seed: int) -> Fitted:
    """Return one classifier for each label against all others, on features divided by their lengths."""
    from sklearn.svm import SVC

    names, targets = _targets(outcomes)
    features = normalize(outcomes.features)
    variance = float(features.var())
    gamma = 1 / (features.shape[1] * variance) if variance else 1.0
    options = {"kernel": parameters["kernel"], "C": parameters["C"], "gamma": gamma, "random_state": seed}
    estimators = [SVC(**options).fit(features, targets == one) for one in range(len(names))]
    linear = parameters["kernel"] == "linear"
    named = list(zip(names, estimators, strict=True))
    fields = {
        "model_names": names,
        "kernel_type": "Linear" if linear else "Rbf",
        "gamma": gamma,
        "linear_classifiers": [_linear_classifier(name, one) for name, one in named] if linear else [],
        "rbf_classifiers": [] if linear else [_radial_classifier(name, one, gamma) for name, one in named],
    }
    return Fitted(fields, estimators)


def _linear_classifier(name: str, estimator: Any) -> dict[str, Any]:
    return {"model_name": name, "weights": estimator.coef_[0].tolist(), "rho": -float(estimator.intercept_[0])}


def _radial_classifier(name: str, estimator: Any, gamma: float) -> dict[str, Any]:
    return {
        "model_name": name,
        "alpha": estimator.dual_coef_[0].tolist(),
        "support_vectors": estimator.support_vectors_.tolist(),
        "rho": -float(estimator.intercept_[0]),
        "gamma": gamma,
    }


def mlp_candidates(outcomes: Outcomes) -> list[Parameters]:
    """Return the sizes and penalties to try."""
    del outcomes
    return [{"hidden_sizes": [size], "alpha": alpha} for size in (64, 256) for alpha in (1e-4, 1e-1)]


def fit_mlp(outcomes: Outcomes, parameters: Parameters, seed: int) -> Fitted:
    """Return a perceptron with ReLU between its layers."""
    from sklearn.neural_network import MLPClassifier

    names, targets = _targets(outcomes)
    hidden = parameters["hidden_sizes"]
    estimator = MLPClassifier(hidden, alpha=parameters["alpha"], max_iter=200, random_state=seed)
    estimator.fit(outcomes.features, targets)
    weights = [weight.T for weight in estimator.coefs_]
    biases = list(estimator.intercepts_)
    if len(names) == 2:  # scikit-learn has one logit of the second label; the first one's is 0
        weights[-1] = np.concatenate([np.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
    fields = {
        "model_names": names,
        "feature_dim": outcomes.features.shape[1],
        "n_classes": len(names),
        "hidden_sizes": hidden,
        "dropout": 0.0,
        "layers": _layers(weights, biases),
    }
    return Fitted(fields, [estimator])


def _layers(weights: list[Floats], biases: list[Floats]) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for weight, bias in zip(weights, biases, strict=True):
        outputs, inputs = weight.shape
        layers.append(
            {
                "type": "linear",
                "in_features": inputs,
                "out_features": outputs,
                "weight": weight.tolist(),
                "bias": bias.tolist(),
            }
        )
        layers.append({"type": "relu"})
    return layers[:-1]


def _targets(outcomes: Outcomes) -> tuple[list[str], NDArray[np.intp]]:
    """Return the labels that are the best of a query, and the number of each query's among them.

    Raises:
        InvalidInputError: there is one only.
    """
    chosen, targets = np.unique(outcomes.best, return_inverse=True)
    if len(chosen) < 2:
        raise InvalidInputError(
            f"{outcomes.labels[chosen[0]]} is the best label of every query, and this algorithm needs two: use knn"
        )
    return [outcomes.labels[index] for index in chosen.tolist()], targets
