"""The conditions of `akidb-mlx db query --where`, such as `sender=Alice` and `metadata.priority>=3`."""

from __future__ import annotations

import json
import re
from typing import Any

import typer

_OPERATORS = {
    "=": "Equals",
    "!=": "NotEquals",
    ">": "GreaterThan",
    "<": "LessThan",
    ">=": "GreaterThanOrEqual",
    "<=": "LessThanOrEqual",
    "~": "Contains",
}
# Properties that are always strings, so a value that looks like a number is none.
_STRINGS = ("id", "type", "chat_id", "content")
_CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(!=|>=|<=|=|>|<|~)\s*(.*?)\s*", re.DOTALL)


def parse_condition(given: str) -> dict[str, Any]:
    """Return a condition as the database takes it.

    A value that is JSON (a number, true, false, null, a string in quotes) has that type, and anything else is a string;
    for properties that are always strings, so are numbers, true and false.
    `=` with a list is "In".

    Raises:
        typer.BadParameter: it is none.
    """
    found = _CONDITION.fullmatch(given)
    if found is None:
        raise typer.BadParameter(
            f"{given!r} is no condition: it is a property, one of {' '.join(_OPERATORS)} and a value",
            param_hint="--where",
        )
    name, sign, text = found.groups()
    value = _parse_value(text, numbers=name not in _STRINGS)
    operator = _OPERATORS[sign]
    if isinstance(value, list) and sign == "=":
        operator = "In"
    elif isinstance(value, (list, dict)):
        raise typer.BadParameter(
            f"{given!r} is no condition: only = takes a list, and nothing an object", param_hint="--where"
        )
    return {"property": name, "operator": operator, "value": value}


def _parse_value(text: str, *, numbers: bool) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        if numbers:
            return json.loads(text, parse_constant=refuse)
        value = json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return text
    return [_as_text(one) for one in value] if isinstance(value, list) else _as_text(value)


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool) else value
