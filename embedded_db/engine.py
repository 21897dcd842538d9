"""The interface that an engine has for the rest of the package; `sqlite/` and `postgres/` are the two engines.

The other modules hold SQL that both understand, with values bound by name (`:name`), and ask a transaction for the
parts in which they differ.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedded_db.checks import dump
from embedded_db.query import GraphFilter, StructuralFilter

Keys = NDArray[np.int64]
Scores = NDArray[np.float32]
# Vectors by the keys of their nodes.
Vectors = Mapping[int, NDArray[np.float32]]
# A condition that every node meets.
ALL = "TRUE"
# A cosine of float32 vectors may miss a threshold that it reaches exactly.
TOLERANCE = 1e-6
# A score that an engine computes is this near to the exact one.
ROUNDING = 1e-5


class Conditions(Protocol):
    """Builds a condition on `node n` for each filter, and keeps the values that it binds."""

    values: dict[str, Any]

    def of(self, one: StructuralFilter) -> str:
        """Return the condition of a filter."""
        ...


class Transaction(ABC):
    """Runs statements inside one transaction, and gives the parts of SQL in which the engines differ."""

    # The nodes `n` whose content holds the bound `words`, and how well they match: the lower, the better.
    TEXT_SOURCE: str
    TEXT_RANK: str

    @abstractmethod
    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""

    @abstractmethod
    def run(self, sql: str, **values: Any) -> int:
        """Run a statement, and return how many rows it changed."""

    def row(self, sql: str, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a statement, or None."""
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def value(self, sql: str, **values: Any) -> Any:
        """Return the only value of a statement's first row, or None where there is no row."""
        row = self.row(sql, **values)
        return None if row is None else row[0]

    def json(self, properties: Mapping[str, Any]) -> str:
        """Return properties as they are stored."""
        return dump(properties)

    def now(self) -> float:
        """Return the seconds since 1970 by the clock that all users of the database share."""
        return time.time()

    @abstractmethod
    def each(self, name: str) -> str:
        """Return a subquery of the integers of a bound list."""

    @abstractmethod
    def each_text(self, name: str) -> str:
        """Return a subquery of the strings of a bound list."""

    @abstractmethod
    def string_property(self, column: str, name: str) -> str:
        """Return the expression of a property of a JSON column, which may hold another value as text."""

    def is_string(self, column: str, name: str) -> str:  # noqa: ARG002 - SQLite compares types, too
        """Return a condition on such a property, without which a string equals another value's text."""
        return ALL

    @abstractmethod
    def reached(self, graph: GraphFilter) -> str:
        """Return a query of the keys that a breadth-first search reaches: binds `start`, `depth` and `edge_type`."""

    @abstractmethod
    def conditions(self) -> Conditions:
        """Return what builds the conditions of filters."""

    @abstractmethod
    def match(self, words: list[str]) -> str:
        """Return the value to bind as `words`: all of them must occur, and nothing that they hold is an operator."""

    @abstractmethod
    def size(self) -> int:
        """Return the bytes that the database takes."""

    def run_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of values."""
        for values in rows:
            self.run(sql, **values)

    def set_content(self, key: int, content: str | None) -> None:
        """Give a node another content."""
        self.run("UPDATE node SET content = :content WHERE key = :key", key=key, content=content)
        self.texts_written({key: content})

    def texts_written(self, contents: Mapping[int, str | None]) -> None:  # noqa: B027 - SQLite has triggers for it
        """Make the contents of nodes searchable, by their keys, in place of what they had."""

    def vectors_written(self, model_key: int, vectors: Vectors) -> None:  # noqa: B027 - and for this
        """Make the stored vectors of nodes searchable, in place of what they had."""


class Ranking(Protocol):
    """Compares the vectors of the nodes that meet a condition with a query's."""

    def best(
        self,
        tx: Any,
        /,
        where: str,
        values: dict[str, Any],
        query: NDArray[np.float32],
        most: int,
        threshold: float | None,
    ) -> dict[int, float]:
        """Return the exact cosines of the best nodes, and of all that tie with the last, by their keys."""
        ...

    def similarities(
        self, tx: Any, /, where: str, values: dict[str, Any], query: NDArray[np.float32]
    ) -> tuple[Keys, Scores]:
        """Return all nodes that have a vector, and their cosines with the query, to five decimals."""
        ...

    def best_of_each(
        self,
        tx: Any,
        /,
        where: str,
        values: dict[str, Any],
        queries: Sequence[tuple[int, NDArray[np.float32]]],
        most: int,
        threshold: float | None,
    ) -> list[dict[int, float]]:
        """Return what `best` would for the vectors of several nodes, each without the node itself."""
        ...

    def exact(self, tx: Any, /, query: NDArray[np.float32], keys: Keys) -> NDArray[np.float64]:
        """Return cosines that depend on nothing but the two vectors, so equal vectors tie; NaN where one is gone."""
        ...


class Connections(Protocol):
    """Lends connections to the transactions of all threads."""

    @property
    def path(self) -> str:
        """Return the database as it may be shown, without a password."""
        ...

    @property
    def ranking(self) -> Ranking:
        """Return what compares its vectors."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Give a transaction that sees one state of the database throughout."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Give a transaction that is committed at the end of the block, or undone if the block raises.

        Those of one database take turns, so that what one has read is still so when it writes.
        """
        ...

    def maintain(self) -> None:
        """Tidy the database, which may take a while."""
        ...

    def close(self) -> None:
        """Close all connections; one that is lent is closed when it comes back. Idempotent."""
        ...


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return vectors of length 1; in float64, since squares of the largest and smallest float32 are none."""
    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def cosines(unit: NDArray[np.floating[Any]], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines of unit vectors with a query, each computed alone, in one order."""
    scores = (unit.astype(np.float64) * unit_rows(query[np.newaxis])[0]).sum(axis=1)
    clipped: NDArray[np.float64] = np.clip(scores, -1.0, 1.0)
    return clipped


def reaching(keys: Keys, exact: NDArray[np.float64], threshold: float | None) -> dict[int, float]:
    """Return the exact cosines that reach a threshold, by their keys."""
    least = -2.0 if threshold is None else threshold - TOLERANCE
    return {int(key): float(score) for key, score in zip(keys, exact, strict=True) if score >= least}
