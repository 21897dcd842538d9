"""Records as arrays: the features of each query, and what each label was worth for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.selection.features import join
from akidb_mlx.selection.json_fields import Floats
from akidb_mlx.selection.knn import speed_of, speeds, worth
from akidb_mlx.selection.records import Record

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

# Texts in one call of the embedder: enough to sort by length with profit, few enough for progress to be seen.
_SLICE = 256

# Called with the number of texts embedded and their total.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The queries of some records, each once, and the labels that were tried on them.

    Attributes:
        records: those that the rest is of.
        features: (queries, dimension) float64.
        query_of: (records,) the query of each record.
        speeds: (records,) from 0 to 1, on one scale for all that was gathered.
        text_of: (queries,) the number of each query's text; one text may have several embeddings or categories.
        labels: sorted.
        dimension: of the embeddings alone.
    """

    records: list[Record]
    features: Floats
    query_of: NDArray[np.intp]
    speeds: Floats
    text_of: NDArray[np.intp]
    labels: list[str]
    dimension: int = field(repr=False)

    @cached_property
    def label_of(self) -> NDArray[np.intp]:
        """Return the label of each record."""
        places = {label: index for index, label in enumerate(self.labels)}
        return np.array([places[record.model_name] for record in self.records])

    @cached_property
    def qualities(self) -> Floats:
        """Return the quality of each record: its performance, and 1 where it only says that the label is right."""
        return np.array([1.0 if one.performance is None else one.performance for one in self.records])

    @cached_property
    def timed_first(self) -> list[int]:
        """Return the numbers of the records, those with a response time first: the order of a KNN's file."""
        return _timed_first(self.records)

    @cached_property
    def latency_range(self) -> tuple[int, int] | None:
        """Return the least and the largest latency, None where there are none."""
        times = [one.latency for one in self.records if one.latency is not None]
        return (min(times), max(times)) if times else None

    @cached_property
    def values(self) -> Floats:
        """Return the worth of each label for each query, (queries, labels): 0.9 of the quality and 0.1 of the speed.

        It is the mean where a label was tried more than once, and NaN where it was not tried. For a query of which a
        record only says that its label is right, the other labels are worth 0.
        """
        return self._table(worth(self.qualities, self.speeds))

    @cached_property
    def performances(self) -> Floats:
        """Return the quality of each label for each query, in the same way."""
        return self._table(self.qualities)

    @cached_property
    def best(self) -> NDArray[np.intp]:
        """Return the label that is worth most for each query, of equal ones the first."""
        return np.asarray(np.nanargmax(self.values, axis=1), np.intp)

    def part(self, queries: NDArray[np.intp]) -> Outcomes:
        """Return some of the queries with their records; the labels stay those of all."""
        renumbered = np.full(len(self.features), -1)
        renumbered[queries] = np.arange(len(queries))
        kept = np.flatnonzero(renumbered[self.query_of] >= 0)
        records = [self.records[index] for index in kept.tolist()]
        return Outcomes(
            records,
            self.features[queries],
            renumbered[self.query_of[kept]],
            self.speeds[kept],
            self.text_of[queries],
            self.labels,
            dimension=self.dimension,
        )

    def _table(self, of_record: Floats) -> Floats:
        shape = (len(self.features), len(self.labels))
        sums, counts = np.zeros(shape), np.zeros(shape)
        places = (self.query_of, self.label_of)
        np.add.at(sums, places, of_record)
        np.add.at(counts, places, 1)
        labelled = np.zeros(len(self.features), bool)
        labelled[self.query_of[[one.performance is None for one in self.records]]] = True
        tried = counts > 0
        return np.where(tried, sums / np.maximum(counts, 1), np.where(labelled[:, None], 0.0, np.nan))


def gather(
    records: list[Record],
    service: Embedder | None,
    *,
    prompt: str | None = None,
    category_one_hot: bool = False,
    latency_range: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Outcomes:
    """Return records as arrays; texts without an embedding are embedded.

    Args:
        records: checked.
        service: embeds the texts.
        prompt: a string to put before each text.
        category_one_hot: whether the category follows the embedding.
        latency_range: the latencies of the speeds 1 and 0; None for the least and the largest of the records.
        progress: called with the number of texts embedded and their total.

    Raises:
        InvalidInputError: a text has no embedding and there is no service, or embeddings differ in length.
        AkidbMlxError: a text could not be embedded.
    """
    numbers: dict[tuple[str, str | None, bytes | None], int] = {}
    query_of = []
    firsts: list[Record] = []
    for record in records:
        known = None if record.embedding is None else record.embedding.tobytes()
        number = numbers.setdefault((record.query, record.category if category_one_hot else None, known), len(numbers))
        if number == len(firsts):
            firsts.append(record)
        query_of.append(number)
    embeddings = _embed(firsts, service, prompt, progress)
    features = join(embeddings, [one.category for one in firsts], category_one_hot=category_one_hot)
    labels = sorted({record.model_name for record in records})
    texts = {text: number for number, text in enumerate(dict.fromkeys(one.query for one in firsts))}
    text_of = np.array([texts[one.query] for one in firsts])
    return Outcomes(
        records,
        features,
        np.array(query_of),
        _speeds(records, latency_range),
        text_of,
        labels,
        dimension=embeddings.shape[1],
    )


def _timed_first(records: list[Record]) -> list[int]:
    return sorted(range(len(records)), key=lambda index: records[index].latency is None)


def _speeds(records: list[Record], latency_range: tuple[int, int] | None) -> Floats:
    """Return the speed of each record as a KNN's votes count it; beyond a given range it is 1 or 0."""
    times = np.array([one.latency for one in records if one.latency is not None], np.float64)
    found = np.empty(len(records))
    found[_timed_first(records)] = speeds(times, len(records))
    if latency_range is not None and len(times):
        least, most = map(float, latency_range)
        filled = [(least + most) / 2 if one.latency is None else float(one.latency) for one in records]
        found = np.clip(speed_of(np.array(filled), least, most), 0, 1)
    return found


def _embed(records: list[Record], service: Embedder | None, prompt: str | None, progress: Progress | None) -> Floats:
    """Return the embedding of each record's query, (records, dimension)."""
    rows: list[Floats | None] = [one.embedding for one in records]
    texts = list(dict.fromkeys(one.query for one in records if one.embedding is None))
    if texts and service is None:
        raise InvalidInputError(
            f"{len(texts)} queries have no embedding, as {texts[0][:60]!r}: give a service that embeds them"
        )
    computed: dict[str, Floats] = {}
    for start in range(0, len(texts), _SLICE):
        assert service is not None
        part = texts[start : start + _SLICE]
        vectors = np.asarray(service.embed_array(part, prompt=prompt), np.float64)
        computed.update(zip(part, vectors, strict=True))
        if progress is not None:
            progress(start + len(part), len(texts))
    rows = [computed[one.query] if row is None else row for one, row in zip(records, rows, strict=True)]
    expected = service.dimension if service is not None else len(rows[0]) if rows[0] is not None else 0
    for record, row in zip(records, rows, strict=True):
        assert row is not None
        if len(row) != expected:
            source = f"{service.model_name} gives" if service is not None else "the first has"
            raise InvalidInputError(
                f"the embedding of {record.query[:60]!r} has {len(row)} values, and {source} {expected}"
            )
    return np.array(rows, np.float64)
