"""Held-out evaluation of a selector against the best single label, a random one and the best possible choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.selection.json_fields import Floats
from akidb_mlx.selection.outcomes import Progress, gather
from akidb_mlx.selection.records import Record, check_seed, list_records
from akidb_mlx.selection.router import check_service, takes_category
from akidb_mlx.selection.selector import Selector

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its bootstrap interval of 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Strategy:
    """A way to choose a label for each query.

    Attributes:
        name: "selector", "best single label", "random label" or "oracle".
        value: mean worth of the choices: 0.9 of the quality and 0.1 of the speed.
        performance: mean quality; where records only say which label is right, the accuracy.
    """

    name: str
    value: Estimate
    performance: Estimate


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        queries: how many there were.
        best_single: the label with the best mean worth on these queries.
        strategies: the selector first.
        gain: mean worth of the selector minus that of the best single label, of the same queries.
    """

    queries: int
    best_single: str
    strategies: list[Strategy]
    gain: Estimate

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the cells of a table: the name, the value and the performance, each with its interval."""
        return [(one.name, str(one.value), str(one.performance)) for one in self.strategies]

    def plain(self) -> dict[str, Any]:
        """Return it as plain types."""
        return asdict(self)


def evaluate(
    selector: Selector,
    records: Iterable[Record | Mapping[str, Any]],
    *,
    service: Embedder | None = None,
    category_one_hot: bool | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a selector's choices with others, on records that it was not trained on.

    A label that was not tried on a query counts 0 where it is chosen for it. Speeds are on the scale of the training's
    records, where the selector's file tells it.

    Args:
        selector: trained.
        records: as for `train`.
        service: embeds the queries that have no `embedding`.
        category_one_hot: as for `Router`.
        seed: of the bootstrap.
        progress: called with the number of texts embedded and their total.

    Raises:
        InvalidInputError: a record is not usable, or the service or the vectors are not those of the selector.
        ModelLoadError: the scale of speeds in the selector's file is none.
        NotTrainedError: the selector is not trained.
        AkidbMlxError: a text could not be embedded.
    """
    seed, one_hot = check_seed(seed), takes_category(selector, category_one_hot)
    if service is not None:
        check_service(selector, service, category_one_hot=one_hot)
    outcomes = gather(
        list_records(records),
        service,
        prompt=selector.embedding_model.prompt if selector.embedding_model else None,
        category_one_hot=one_hot,
        latency_range=_latency_range(selector),
        progress=progress,
    )
    chosen = selector.select_batch(outcomes.features)
    values, performances = np.nan_to_num(outcomes.values), np.nan_to_num(outcomes.performances)
    single = int(np.argmax(values.mean(axis=0)))
    queries = np.arange(len(values))
    choices = {
        "selector": (worth_of(values, outcomes.labels, chosen), worth_of(performances, outcomes.labels, chosen)),
        "best single label": (values[:, single], performances[:, single]),
        "random label": (values.mean(axis=1), performances.mean(axis=1)),
        "oracle": (values[queries, outcomes.best], performances[queries, outcomes.best]),
    }
    gains = choices["selector"][0] - choices["best single label"][0]
    figures = np.column_stack([column for pair in choices.values() for column in pair] + [gains])
    *estimates, gain = bootstrap(figures, seed)
    pairs = zip(choices, estimates[::2], estimates[1::2], strict=True)
    return Evaluation(len(values), outcomes.labels[single], [Strategy(*one) for one in pairs], gain)


def worth_of(table: Floats, labels: Sequence[str], chosen: Sequence[str]) -> Floats:
    """Return what the chosen label of each query is worth, by a table (queries, labels); 0 where it was not tried."""
    places = {label: index for index, label in enumerate(labels)}
    columns = np.array([places.get(label, -1) for label in chosen])
    found = table[np.arange(len(table)), columns]
    return np.where((columns < 0) | np.isnan(found), 0.0, found)


def bootstrap(figures: Floats, seed: int) -> list[Estimate]:
    """Return the mean of each column with its interval; rows are drawn, one sample at a time, for all columns alike."""
    rng = np.random.default_rng(seed)
    count = len(figures)
    samples = np.stack([figures[rng.integers(0, count, count)].mean(axis=0) for _ in range(_RESAMPLES)])
    low, high = np.percentile(samples, _INTERVAL, axis=0)
    return [Estimate(*map(float, one)) for one in zip(figures.mean(axis=0), low, high, strict=True)]


def _latency_range(selector: Selector) -> tuple[int, int] | None:
    """Return the latencies that training's scale of speeds begins and ends with, None where the file has none."""
    training = selector.describe()["training"]
    found = training.get("latency_range") if isinstance(training, dict) else None
    if found is None:
        return None
    if not isinstance(found, list) or list(map(type, found)) != [int, int] or not 0 <= found[0] <= found[1] < 1 << 63:
        raise ModelLoadError("training.latency_range must be two integers in order, the least and the largest latency")
    return found[0], found[1]
