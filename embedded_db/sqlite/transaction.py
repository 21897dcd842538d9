"""Transactions on SQLite, and what it says in its own way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import apsw

from embedded_db.engine import Transaction
from embedded_db.graph import STEPS
from embedded_db.query import GraphFilter
from embedded_db.sqlite.filters import Conditions


class SqliteTransaction(Transaction):
    """A transaction on SQLite; lists are bound as JSON."""

    TEXT_SOURCE = "node_text t JOIN node n ON n.key = t.rowid AND t.node_text MATCH :words"
    TEXT_RANK = "t.rank"

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""
        return self._execute(sql, values).fetchall()

    def row(self, sql: str, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a statement, or None."""
        return self._execute(sql, values).fetchone()

    def run(self, sql: str, **values: Any) -> int:
        """Run a statement, and return how many rows it changed."""
        self._execute(sql, values)
        return self._connection.changes()

    def run_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of values."""
        self._connection.executemany(sql, rows)

    def each(self, name: str) -> str:
        """Return a subquery of the integers of a bound list."""
        return f"SELECT value FROM json_each(:{name})"

    def each_text(self, name: str) -> str:
        """Return a subquery of the strings of a bound list."""
        return self.each(name)

    def string_property(self, column: str, name: str) -> str:
        """Return the expression of a property of a JSON column."""
        return f"json_extract({column}, '$.{name}')"

    def reached(self, graph: GraphFilter) -> str:
        """Return a query of the keys that a breadth-first search reaches; it binds `start`, `depth` and `edge_type`.

        There is one recursive term for each direction: a single one with OR in its join could use no index. CROSS JOIN
        fixes the order, from what was reached to the edges.
        """
        of_type = " AND e.type = :edge_type" if graph.edge_type is not None else ""
        terms = "".join(
            f" UNION SELECT e.{there}, r.depth + 1 FROM reached r CROSS JOIN edge e ON e.{here} = r.key{of_type}"
            " WHERE r.depth < :depth"
            for here, there in STEPS[graph.direction]
        )
        return f"WITH RECURSIVE reached (key, depth) AS (SELECT :start, 0{terms}) SELECT key FROM reached"

    def conditions(self) -> Conditions:
        """Return what builds the conditions of filters."""
        return Conditions()

    def match(self, words: list[str]) -> str:
        """Return words as a query of FTS5, in which nothing that they hold is an operator; all of them must occur."""
        return " AND ".join('"' + word.replace('"', '""') + '"' for word in words)

    def size(self) -> int:
        """Return the size of the file, without the log of recent writes."""
        size: int = self.value("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return size

    def _execute(self, sql: str, values: dict[str, Any]) -> apsw.Cursor:
        bound = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
        return self._connection.execute(sql, bound)
