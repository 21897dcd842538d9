"""Training of selectors: embedding the queries, choosing hyper-parameters by cross-validation, fitting, exporting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import shown
from akidb_mlx.selection import fitting
from akidb_mlx.selection.evaluation import worth_of
from akidb_mlx.selection.features import EmbeddingModel
from akidb_mlx.selection.files import ALGORITHMS
from akidb_mlx.selection.fitting import Fitted, Parameters
from akidb_mlx.selection.outcomes import Outcomes, Progress, gather
from akidb_mlx.selection.records import Record, check_seed, list_records
from akidb_mlx.selection.selector import FORMAT_VERSION, Selector

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

logger = logging.getLogger(__name__)

_FOLDS = 3
# Records that hyper-parameters are chosen on, at most; the fit itself is on all.
_VALIDATED_RECORDS = 4000


class _Algorithm(NamedTuple):
    candidates: Callable[[Outcomes], list[Parameters]]
    fit: Callable[[Outcomes, Parameters, int], Fitted]


_FITS = {
    "knn": _Algorithm(fitting.knn_candidates, fitting.fit_knn),
    "kmeans": _Algorithm(fitting.kmeans_candidates, fitting.fit_kmeans),
    "svm": _Algorithm(fitting.svm_candidates, fitting.fit_svm),
    "mlp": _Algorithm(fitting.mlp_candidates, fitting.fit_mlp),
}


def train(
    records: Iterable[Record | Mapping[str, Any]],
    *,
    algorithm: str = "knn",
    service: Embedder | None = None,
    seed: int = 0,
    prompt: str | None = None,
    category_one_hot: bool = False,
    progress: Progress | None = None,
) -> Selector:
    """Return a selector of some records. The same records and seed give the same selector.

    Args:
        records: see `Record`; dictionaries with the same fields are taken too.
        algorithm: "knn", "kmeans", "svm" or "mlp".
        service: embeds the queries that have no `embedding`. The file names its model as the one of all vectors, so
            those of the records must be of that model, and with that prompt, too.
        seed: of all that is random.
        prompt: a string to put before each query; a router will do the same.
        category_one_hot: whether the category follows the embedding.
        progress: called with the number of texts embedded and their total.

    Raises:
        InvalidInputError: a record or another argument is not usable.
        ConfigurationError: scikit-learn is not installed, and the algorithm is not "knn", which needs none.
        AkidbMlxError: a text could not be embedded.
    """
    if algorithm not in ALGORITHMS:
        raise InvalidInputError(f"algorithm must be one of {', '.join(ALGORITHMS)}, found {shown(algorithm)}")
    seed, fits_itself = check_seed(seed), algorithm == "knn"
    if not fits_itself:
        fitting.check_scikit_learn()  # before an hour of embedding, not after it
    outcomes = gather(
        list_records(records), service, prompt=prompt, category_one_hot=category_one_hot, progress=progress
    )
    with nullcontext() if fits_itself else fitting.reproducible():
        parameters, validated = choose_parameters(outcomes, algorithm, seed)
        fitted = _FITS[algorithm].fit(outcomes, parameters, seed)
    model = None if service is None else EmbeddingModel.of(service, prompt).plain()
    document = {
        "algorithm": algorithm,
        "trained": True,
        "format_version": FORMAT_VERSION,
        **({"embedding_model": model} if model else {}),
        "features": {"category_one_hot": category_one_hot},
        "training": {
            "records": len(outcomes.records),
            "queries": len(outcomes.features),
            "seed": seed,
            "parameters": parameters,
            "cross_validated_value": validated,
            "latency_range": outcomes.latency_range and list(outcomes.latency_range),
        },
        **fitted.fields,
    }
    return Selector(document)


def choose_parameters(outcomes: Outcomes, algorithm: str, seed: int) -> tuple[Parameters, float | None]:
    """Return the candidate with the best mean worth of its choices for held-out queries, and that worth.

    Of equal ones it is the first. Where there are too few texts for folds, it is the first and has no worth.
    """
    kind = _FITS[algorithm]
    candidates = kind.candidates(outcomes)
    folds = list(_folds(outcomes, seed))
    if not folds:
        return candidates[0], None
    worths = []
    for parameters in candidates:
        found = [_validate(kind.fit(fit, parameters, seed), algorithm, held) for fit, held in folds]
        worths.append(float(np.mean(found)))
        logger.info("%s %s: cross-validated worth %.4f", algorithm, parameters, worths[-1])
    best = int(np.argmax(worths))
    return candidates[best], worths[best]


def _validate(fitted: Fitted, algorithm: str, held: Outcomes) -> float:
    selector = Selector({"algorithm": algorithm, "trained": True, **fitted.fields})
    return float(worth_of(held.values, held.labels, selector.select_batch(held.features)).mean())


def _folds(outcomes: Outcomes, seed: int) -> Iterator[tuple[Outcomes, Outcomes]]:
    """Yield the queries to fit and those held out, fold by fold; those of one text stay together."""
    texts = np.random.default_rng(seed).permutation(outcomes.text_of.max() + 1)
    texts = texts[: max(1, _VALIDATED_RECORDS * len(texts) // len(outcomes.records))]
    if len(texts) < 2 * _FOLDS:
        return
    by_text: list[list[int]] = [[] for _ in range(outcomes.text_of.max() + 1)]
    for query, text in enumerate(outcomes.text_of.tolist()):
        by_text[text].append(query)
    parts: list[NDArray[np.intp]] = [
        np.array([query for text in part.tolist() for query in by_text[text]]) for part in np.array_split(texts, _FOLDS)
    ]
    for number, part in enumerate(parts):
        fit = outcomes.part(np.concatenate(parts[:number] + parts[number + 1 :]))
        if len(np.unique(fit.best)) > 1:
            yield fit, outcomes.part(part)
