"""Structural filters as SQL with bound values; JSON of PostgreSQL compares by type and value."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from embedded_db.checks import dump
from embedded_db.query import StructuralFilter

# Properties that have a column of their own.
_STRINGS, _NUMBERS = ("id", "type", "chat_id", "content"), ("created_at",)
_COMPARISONS = {"GreaterThan": ">", "LessThan": "<", "GreaterThanOrEqual": ">=", "LessThanOrEqual": "<="}
# A string, or else a float with an exponent.
_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\d[\d.]*e\+\d+)')


class Conditions:
    """Builds a condition on `node n` for each filter, and keeps the values that it binds."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def of(self, one: StructuralFilter) -> str:
        """Return the condition of a filter."""
        name, value = one.property, one.value
        in_column = name in _STRINGS or name in _NUMBERS
        if one.operator in ("Equals", "NotEquals", "In"):
            values = value if one.operator == "In" else [value]
            among = self._column_among(name, values) if in_column else self._json_among(name, values)
            return f"NOT coalesce({among}, FALSE)" if one.operator == "NotEquals" else among
        if one.operator == "Contains":
            return self._column_contains(name, value) if in_column else self._json_contains(name, value)
        comparison = _COMPARISONS[one.operator]
        return self._column_compare(name, comparison, value) if in_column else self._compare(name, comparison, value)

    def _bind(self, value: Any, kind: str) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"CAST(:{name} AS {kind})"

    def _json(self, name: str) -> str:
        """Return the value of a property; a step into what is no dictionary gives NULL, as a missing one does."""
        return "(n.properties" + "".join(f" -> {self._bind(step, 'text')}" for step in name.split(".")) + ")"

    def _json_among(self, name: str, values: list[Any]) -> str:
        members = self._bind(exact_json(values), "jsonb")
        return f"coalesce({self._json(name)}, 'null') IN (SELECT jsonb_array_elements({members}))"

    def _json_contains(self, name: str, value: Any) -> str:
        found = self._json(name)
        whens = f" WHEN 'array' THEN {found} @> {self._bind(exact_json(value), 'jsonb')}"
        if isinstance(value, str):
            whens += f" WHEN 'string' THEN strpos({found} #>> '{{}}', {self._bind(value, 'text')}) > 0"
        return f"CASE jsonb_typeof({found}){whens} END"

    def _compare(self, name: str, comparison: str, value: Any) -> str:
        found = self._json(name)
        if isinstance(value, str):
            compared = f"({found} #>> '{{}}') COLLATE \"C\" {comparison} {self._bind(value, 'text')}"
            return f"CASE WHEN jsonb_typeof({found}) = 'string' THEN {compared} END"
        # CASE, since the other side of an AND may be computed first.
        return (
            f"CASE WHEN jsonb_typeof({found}) = 'number'"
            f" THEN CAST({found} AS numeric) {comparison} {self._bind(_exact_number(value), 'numeric')} END"
        )

    def _column_among(self, name: str, values: list[Any]) -> str:
        strings = name in _STRINGS
        kept = [value for value in values if isinstance(value, str) == strings and not isinstance(value, bool)]
        kept = kept if strings else [float(value) for value in kept if value is not None]
        members = self._bind(kept, "text[]" if strings else "float8[]")
        among = f"n.{name} IN (SELECT unnest({members}))"
        return f"({among} OR n.{name} IS NULL)" if None in values else among

    def _column_contains(self, name: str, value: Any) -> str:
        if name not in _STRINGS or not isinstance(value, str):
            return "FALSE"
        return f"strpos(n.{name}, {self._bind(value, 'text')}) > 0"

    def _column_compare(self, name: str, comparison: str, value: Any) -> str:
        if isinstance(value, str) != (name in _STRINGS):
            return "FALSE"
        return f"n.{name} {comparison} {self._bind(value, 'text' if name in _STRINGS else 'float8')}"


def exact_json(value: Any) -> str:
    """Return a value as JSON in which large floats have all their digits.

    Numbers of `jsonb` are decimals, so 1.152921504606847e+18 would not equal the integer that it is.
    """
    text = dump(value)
    return _LARGE_FLOAT.sub(_all_digits, text) if "e+" in text else text


def _all_digits(match: re.Match[str]) -> str:
    return f"{int(float(match[1]))}.0" if match[1] else match[0]


def _exact_number(value: float) -> int | Decimal:
    """Return a number as the decimal that it is compared as."""
    if isinstance(value, int):
        return value
    return Decimal(int(value)) if value.is_integer() else Decimal(repr(value))
