"""Strict reading of the fields of a selector's JSON: each is checked, and named where it is wrong."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.selection.json_text import MAX_DEPTH, kind_of, too_deep

Floats = NDArray[np.float64]


def check_plain(name: str, value: Any, depth: int) -> None:
    """Check a field that no rule reads and that is written back as it was.

    Args:
        name: of the field.
        value: its value.
        depth: how many objects and lists it is in, the selector included.

    Raises:
        ModelLoadError: it is nested too deeply, or holds a number that is not finite.
    """
    if isinstance(value, (list, dict)) and depth > MAX_DEPTH:
        raise too_deep()
    if type(value) in (int, float):
        _numbers([value], name, indexed=False)
    elif isinstance(value, list):
        if set(map(type, value)) <= {float, int}:  # most of a large file, in one step
            _numbers(value, name)
            return
        for one in value:
            check_plain(name, one, depth + 1)
    elif isinstance(value, dict):
        for one in value.values():
            check_plain(name, one, depth + 1)


class Width:
    """The one length that several rows must have, and the row that it is of."""

    def __init__(self) -> None:
        self.size = 0
        self._source = ""

    def check(self, size: int, name: str) -> None:
        """Refuse a row of another length than the first had, and one without values.

        Raises:
            ModelLoadError: it is; both are named.
        """
        if size == 0:
            raise ModelLoadError(f"{name} is empty")
        if not self._source:
            self.size, self._source = size, name
        elif size != self.size:
            raise ModelLoadError(f"{name} has {_count(size)} and {self._source} has {self.size}")


class Fields:
    """The fields of one object of a selector's JSON.

    Each method checks a field and returns it. Lists of numbers become arrays, in the object too, which is written back
    later. All raise ModelLoadError, which names the field.

    Args:
        values: the object.
        path: the place of the object, before the names of its fields.
        depth: how many objects and lists its fields are in.
    """

    def __init__(self, values: dict[str, Any], path: str = "", depth: int = 1) -> None:
        self.values = values
        self._path, self._depth = path, depth
        self._read: set[str] = set()

    def name(self, key: str) -> str:
        """Return the name of a field in an error."""
        return f"{self._path}{key}"

    def has(self, key: str) -> bool:
        """Return whether a field is there and not null."""
        return self.values.get(key) is not None

    def boolean(self, key: str) -> bool:
        """Return a truth value."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def integer(self, key: str, minimum: int = 0) -> int:
        """Return an integer of `minimum` or more."""
        value = self._take(key)
        if type(value) is not int or not minimum <= value < 1 << 63:
            raise self._wrong(key, f"an integer of {minimum} or more", value)
        return value

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self._take(key)
        if type(value) not in (int, float):
            raise self._wrong(key, "a number", value)
        return float(_numbers([value], self.name(key), indexed=False)[0])

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._take(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def choice(self, key: str, options: tuple[str, ...]) -> str:
        """Return one of some words."""
        value = self.text(key)
        if value not in options:
            raise self._wrong(key, f"one of {', '.join(options)}", value)
        return value

    def strings(self, key: str) -> list[str]:
        """Return a list of strings."""
        found = self._list(key, "a list of strings")
        for index, one in enumerate(found):
            if not isinstance(one, str):
                raise self._wrong(f"{key}[{index}]", "a string", one)
        return found

    def integers(self, key: str) -> NDArray[np.int64]:
        """Return a list of 64-bit integers as an array."""
        found = self._list(key, "a list of integers")
        for index, one in enumerate(found):
            if type(one) is not int or not -(1 << 63) <= one < 1 << 63:
                raise self._wrong(f"{key}[{index}]", "an integer of 64 bits", one)
        array = self.values[key] = np.array(found, np.int64)
        return array

    def vector(self, key: str) -> Floats:
        """Return a list of numbers as an array."""
        array = self.values[key] = _numbers(self._list(key, "a list of numbers"), self.name(key))
        return array

    def matrix(self, key: str, width: Width) -> Floats:
        """Return a list of rows of numbers as an array, each of the same length."""
        rows = self._list(key, "a list of lists of numbers")
        for index, row in enumerate(rows):
            if not isinstance(row, list):
                raise self._wrong(f"{key}[{index}]", "a list of numbers", row)
            width.check(len(row), f"{self.name(key)}[{index}]")
        array = self.values[key] = np.empty((len(rows), width.size))
        for index, row in enumerate(rows):
            array[index] = _numbers(row, f"{self.name(key)}[{index}]")
            rows[index] = None  # a row of Python's numbers takes four times as much memory
        return array

    def objects(self, key: str) -> list[Fields]:
        """Return a list of objects."""
        found = self._list(key, "a list of objects")
        for index, one in enumerate(found):
            if not isinstance(one, dict):
                raise self._wrong(f"{key}[{index}]", "an object", one)
        return [Fields(one, f"{self.name(key)}[{index}].", self._depth + 2) for index, one in enumerate(found)]

    def object(self, key: str) -> Fields:
        """Return an object."""
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Fields(value, f"{self.name(key)}.", self._depth + 1)

    def check_others(self) -> None:
        """Check the fields that were not read, which are kept."""
        for key in self.values.keys() - self._read:
            check_plain(self.name(key), self.values[key], self._depth)

    def error(self, key: str, fault: str) -> ModelLoadError:
        """Return the error of a field with a fault that its type does not show."""
        return ModelLoadError(f"{self.name(key)} {fault}")

    def _take(self, key: str) -> Any:
        self._read.add(key)
        if key not in self.values:
            raise ModelLoadError(f"the selector has no field {self.name(key)}")
        return self.values[key]

    def _list(self, key: str, expected: str) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list):
            raise self._wrong(key, expected, value)
        return value

    def _wrong(self, key: str, expected: str, found: Any) -> ModelLoadError:
        shown = reprlib.repr(found) if isinstance(found, (str, int, float)) else kind_of(found)
        return ModelLoadError(f"{self.name(key)} must be {expected}, found {shown}")


def _numbers(values: list[Any], name: str, *, indexed: bool = True) -> Floats:
    """Return finite numbers as an array; JSON's true and false are none."""
    if not set(map(type, values)) <= {float, int}:
        index = next(index for index, value in enumerate(values) if type(value) not in (float, int))
        raise ModelLoadError(f"{name}[{index}] must be a number, found {kind_of(values[index])}")
    try:
        array = np.fromiter(values, np.float64, len(values))
    except OverflowError:  # an integer of hundreds of digits
        array = np.array([float(value) if abs(value) < 1e308 else np.inf for value in values])
    if not np.isfinite(array).all():
        place = f"[{int(np.argmin(np.isfinite(array)))}]" if indexed else ""
        raise ModelLoadError(f"{name}{place} is not a finite number")
    return array


def _count(size: int) -> str:
    return f"{size} value{'' if size == 1 else 's'}"
