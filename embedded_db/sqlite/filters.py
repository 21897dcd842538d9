"""Structural filters and words of a text query as SQL with bound values."""

from __future__ import annotations

from typing import Any

from embedded_db.query import StructuralFilter

# Properties that have a column of their own, and the type that they always have.
_COLUMNS = {"id": str, "type": str, "chat_id": str, "content": str, "created_at": float}
_COMPARISONS = {"GreaterThan": ">", "LessThan": "<", "GreaterThanOrEqual": ">=", "LessThanOrEqual": "<="}
_FALSE = "0"
# The condition on `node_text t` that a text query is.
MATCH = "t.node_text MATCH :words"


class Conditions:
    """Builds a condition on `node n` for each filter, and keeps the values that it binds."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def of(self, one: StructuralFilter) -> str:
        """Return the condition of a filter."""
        if one.operator == "In":
            return " OR ".join(self._equals(one.property, value) for value in one.value) or _FALSE
        if one.operator == "Equals":
            return self._equals(one.property, one.value)
        if one.operator == "NotEquals":
            return f"NOT coalesce({self._equals(one.property, one.value)}, 0)"
        if one.operator == "Contains":
            return self._contains(one.property, one.value)
        return self._compare(one.property, _COMPARISONS[one.operator], one.value)

    def _bind(self, value: Any) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _path(self, name: str) -> str:
        return self._bind("$" + "".join(f'."{step}"' for step in name.split(".")))

    def _equals(self, name: str, value: Any) -> str:
        if name in _COLUMNS:
            return f"n.{name} IS NULL" if value is None else self._compare(name, "=", value)
        if value is None:
            return f"coalesce(json_type(n.properties, {self._path(name)}), 'null') = 'null'"
        if isinstance(value, bool):
            return f"json_type(n.properties, {self._path(name)}) = '{str(value).lower()}'"
        return self._compare(name, "=", value)

    def _compare(self, name: str, comparison: str, value: Any) -> str:
        """Return a comparison with a string or a number, which is met by values of that type only."""
        if kind := _COLUMNS.get(name):
            fits = isinstance(value, str) if kind is str else not isinstance(value, (str, bool))
            return f"n.{name} {comparison} {self._bind(value)}" if fits else _FALSE
        path = self._path(name)
        types = "'text'" if isinstance(value, str) else "'integer', 'real'"
        # CASE, since the other side of an AND may be computed first.
        return (
            f"CASE WHEN json_type(n.properties, {path}) IN ({types})"
            f" THEN json_extract(n.properties, {path}) {comparison} {self._bind(value)} END"
        )

    def _contains(self, name: str, value: Any) -> str:
        if name in _COLUMNS:
            fits = isinstance(value, str) and _COLUMNS[name] is str
            return f"instr(n.{name}, {self._bind(value)}) > 0" if fits else _FALSE
        path = self._path(name)
        if value is None:
            inside = "j.type = 'null'"
        elif isinstance(value, bool):
            inside = f"j.type = '{str(value).lower()}'"
        else:
            types = "'text'" if isinstance(value, str) else "'integer', 'real'"
            inside = f"j.type IN ({types}) AND j.value = {self._bind(value)}"
        whens = f" WHEN 'array' THEN EXISTS (SELECT 1 FROM json_each(n.properties, {path}) j WHERE {inside})"
        if isinstance(value, str):
            whens += f" WHEN 'text' THEN instr(json_extract(n.properties, {path}), {self._bind(value)}) > 0"
        return f"CASE json_type(n.properties, {path}){whens} END"


def match_expression(words: list[str]) -> str:
    """Return words as a query of FTS5, in which nothing that they hold is an operator; all of them must occur."""
    return " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
