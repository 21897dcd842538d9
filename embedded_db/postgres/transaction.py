"""Transactions on PostgreSQL, and what it says in its own way."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper

from embedded_db.engine import Transaction, Vectors, unit_rows
from embedded_db.errors import InvalidRecordError
from embedded_db.graph import STEPS
from embedded_db.postgres.filters import Conditions, exact_json
from embedded_db.postgres.text import to_tsquery, to_tsvector
from embedded_db.query import GraphFilter

# pgvector's own limit.
_MOST_DIMENSIONS = 16000
_NAME = re.compile(r"(?<!:):(\w+)")


class PostgresTransaction(Transaction):
    """A transaction on PostgreSQL; lists are bound as arrays."""

    TEXT_SOURCE = "node_text t JOIN node n ON n.key = t.node_key AND t.words @@ CAST(:words AS tsquery)"
    TEXT_RANK = "-ts_rank(t.words, CAST(:words AS tsquery))"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""
        return self._execute(sql, values).fetchall()

    def run(self, sql: str, **values: Any) -> int:
        """Run a statement, and return how many rows it changed."""
        return self._execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of values, without a wait for each."""
        given = list(rows)
        if len(given) == 1:  # a pipeline would wait once more
            self._execute(sql, given[0])
        else:
            self._connection.cursor().executemany(_placeholders(sql), given)

    def binary_row(self, sql: str, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a statement, whose values are sent as they are in memory."""
        return self._execute(sql, values, binary=True).fetchone()

    def binary_rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a statement, whose values are sent as they are in memory."""
        return self._execute(sql, values, binary=True).fetchall()

    def json(self, properties: Mapping[str, Any]) -> str:
        """Return properties as they are stored."""
        return exact_json(properties)

    def now(self) -> float:
        """Return the seconds since 1970 by the server's clock, since those of its clients differ."""
        now: float = self.value("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
        return now

    def each(self, name: str) -> str:
        """Return a subquery of the integers of a bound list."""
        return f"SELECT unnest(CAST(:{name} AS bigint[]))"

    def each_text(self, name: str) -> str:
        """Return a subquery of the strings of a bound list."""
        return f"SELECT unnest(CAST(:{name} AS text[]))"

    def string_property(self, column: str, name: str) -> str:
        """Return the expression of a property of a JSON column."""
        return f"({column} ->> '{name}')"

    def is_string(self, column: str, name: str) -> str:
        """Return the condition that a property is a string; apart, since the index is of the expression alone."""
        return f"jsonb_typeof({column} -> '{name}') = 'string'"

    def reached(self, graph: GraphFilter) -> str:
        """Return a query of the keys that a breadth-first search reaches; it binds `start`, `depth` and `edge_type`."""
        of_type = " AND e.type = :edge_type" if graph.edge_type is not None else ""
        steps = " UNION ALL ".join(
            f"SELECT e.{there} AS key FROM edge e WHERE e.{here} = r.key{of_type}"
            for here, there in STEPS[graph.direction]
        )
        return (
            "WITH RECURSIVE reached (key, depth) AS (SELECT CAST(:start AS bigint), 0"
            f" UNION SELECT s.key, r.depth + 1 FROM reached r CROSS JOIN LATERAL ({steps}) s WHERE r.depth < :depth)"
            " SELECT key FROM reached"
        )

    def conditions(self) -> Conditions:
        """Return what builds the conditions of filters."""
        return Conditions()

    def match(self, words: list[str]) -> str:
        """Return words as a tsquery, in which nothing that they hold is an operator; all of them must occur."""
        return to_tsquery(words)

    def size(self) -> int:
        """Return the size of the database."""
        size: int = self.value("SELECT pg_database_size(current_database())")
        return size

    def texts_written(self, contents: Mapping[int, str | None]) -> None:
        """Make the contents of nodes searchable, by their keys, in place of what they had."""
        gone = [key for key, content in contents.items() if content is None]
        if gone:
            self.run(f"DELETE FROM node_text WHERE node_key IN ({self.each('keys')})", keys=gone)
        self.run_many(
            "INSERT INTO node_text (node_key, words) VALUES (:key, CAST(:words AS tsvector))"
            " ON CONFLICT (node_key) DO UPDATE SET words = excluded.words",
            [{"key": key, "words": to_tsvector(text)} for key, text in contents.items() if text is not None],
        )

    def vectors_written(self, model_key: int, vectors: Vectors) -> None:
        """Make the stored vectors of nodes searchable, in place of what they had."""
        for vector in vectors.values():
            if vector.size > _MOST_DIMENSIONS:
                raise InvalidRecordError(
                    f"pgvector holds vectors of up to {_MOST_DIMENSIONS} values, found {vector.size}"
                )
        self.run_many(
            "INSERT INTO unit_vector (node_key, model_key, unit) VALUES (:key, :model_key, CAST(:unit AS vector))"
            " ON CONFLICT (model_key, node_key) DO UPDATE SET unit = excluded.unit",
            [{"key": key, "model_key": model_key, "unit": UnitVector.of(one)} for key, one in vectors.items()],
        )

    def _execute(self, sql: str, values: Mapping[str, Any], *, binary: bool = False) -> psycopg.Cursor[Any]:
        return self._connection.execute(_placeholders(sql), values, binary=binary)


@dataclass(frozen=True)
class UnitVector:
    """A vector that is bound as pgvector reads it: its size, a field of zeros, and its values."""

    data: bytes

    @classmethod
    def of(cls, vector: NDArray[np.float32]) -> UnitVector:
        """Return the direction of a vector."""
        values = unit_rows(vector[np.newaxis])[0].astype(">f4")
        return cls(struct.pack(">HH", values.size, 0) + values.tobytes())


class UnitVectorDumper(Dumper):
    """Binds a `UnitVector`; the server knows the type from the statement, in which it is cast."""

    format = psycopg.pq.Format.BINARY

    def dump(self, obj: UnitVector) -> bytes:
        """Return what is sent."""
        return obj.data


@lru_cache(maxsize=1024)
def _placeholders(sql: str) -> str:
    """Return a statement with its `:names` as psycopg writes them."""
    return _NAME.sub(r"%(\1)s", sql.replace("%", "%%"))
