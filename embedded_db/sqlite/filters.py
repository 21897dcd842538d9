"""Structural filters as SQL with bound values."""

from __future__ import annotations

import json
from typing import Any

from embedded_db.query import StructuralFilter

# Properties that have a column of their own, and the type that they always have.
_COLUMNS = {"id": str, "type": str, "chat_id": str, "content": str, "created_at": float}
_COMPARISONS = {"GreaterThan": ">", "LessThan": "<", "GreaterThanOrEqual": ">=", "LessThanOrEqual": "<="}
FALSE = "FALSE"


class Conditions:
    """Builds a condition on `node n` for each filter, and keeps the values that it binds."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def of(self, one: StructuralFilter) -> str:
        """Return the condition of a filter."""
        if one.operator == "In":
            return self._among(one.property, one.value)
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

    def _among(self, name: str, values: list[Any]) -> str:
        """Return the condition of a list, in which all strings are one bound value, and all numbers."""
        strings = [value for value in values if isinstance(value, str)]
        constants = [constant for constant in (None, True, False) if any(value is constant for value in values)]
        numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        parts = [self._equals(name, constant) for constant in constants]
        parts += [self._compare(name, "IN", members) for members in (strings, numbers) if members]
        return " OR ".join(parts) or FALSE

    def _equals(self, name: str, value: Any) -> str:
        if name in _COLUMNS:
            return f"n.{name} IS NULL" if value is None else self._compare(name, "=", value)
        if value is None:
            return f"coalesce(json_type(n.properties, {self._path(name)}), 'null') = 'null'"
        if isinstance(value, bool):
            return f"json_type(n.properties, {self._path(name)}) = '{str(value).lower()}'"
        return self._compare(name, "=", value)

    def _compare(self, name: str, comparison: str, value: Any) -> str:
        """Return a comparison with a string, a number or a list of either, which values of that type alone meet."""
        one, operand = value, self._bind(json.dumps(value) if isinstance(value, list) else value)
        if isinstance(value, list):
            one, operand = value[0], f"(SELECT value FROM json_each({operand}))"
        if kind := _COLUMNS.get(name):
            fits = isinstance(one, str) if kind is str else not isinstance(one, (str, bool))
            return f"n.{name} {comparison} {operand}" if fits else FALSE
        path = self._path(name)
        types = "'text'" if isinstance(one, str) else "'integer', 'real'"
        # CASE, since the other side of an AND may be computed first.
        return (
            f"CASE WHEN json_type(n.properties, {path}) IN ({types})"
            f" THEN json_extract(n.properties, {path}) {comparison} {operand} END"
        )

    def _contains(self, name: str, value: Any) -> str:
        if name in _COLUMNS:
            fits = isinstance(value, str) and _COLUMNS[name] is str
            return f"instr(n.{name}, {self._bind(value)}) > 0" if fits else FALSE
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
