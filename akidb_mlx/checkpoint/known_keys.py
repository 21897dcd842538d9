"""The check that every key of a file is honoured, known to be harmless, or refused by name.

`architectures` and `module_keys` hold the lists. They are data, which tests and documents read too.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ModelLoadError


@dataclass(frozen=True)
class Only:
    """The values of a key that are supported, and the reason why no other is."""

    values: tuple[Any, ...]
    reason: str


@dataclass(frozen=True)
class KnownKeys:
    """The keys that one kind of file may hold; any other is refused unless its value is empty.

    Attributes:
        honoured: keys that are read, and whose values are checked where they are read.
        only: keys that would change the vectors, with the values that are supported.
        harmless: keys that change no vector whatever their value, with the reason.
    """

    honoured: frozenset[str]
    only: Mapping[str, Only] = field(default_factory=dict)
    harmless: Mapping[str, str] = field(default_factory=dict)

    def check(self, path: Path, content: Mapping[str, Any], where: str = "") -> None:
        """Check all keys of a file, or of an object in it.

        Args:
            path: the file, for messages.
            content: its content.
            where: the way to the object in the file, for messages.

        Raises:
            ModelLoadError: a key is not known, or has a value that is not supported.
        """
        for key, value in content.items():
            rule = self.only.get(key)
            if rule is not None:
                if not any(_same(value, allowed) for allowed in rule.values):
                    raise ModelLoadError(f"{_found(path, where, key, value)} is not supported: {rule.reason}")
            elif key not in self.honoured and key not in self.harmless and not is_empty(value):
                raise ModelLoadError(
                    f"{_found(path, where, key, value)} is a key that akidb-mlx does not know, and that may change "
                    "the vectors; remove it from the file if it does not"
                )


def is_empty(value: Any) -> bool:
    """Return whether a value says nothing: null, false, an empty string or container, or a container of such."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, (dict, list)):
            pending += value.values() if isinstance(value, dict) else value
        elif value is not None and value is not False and value != "":
            return False
    return True


def cut(text: str, longest: int = 80) -> str:
    """Return a name from a file as it may be put into a message: on one line and not too long."""
    shown = " ".join(text[: 2 * longest].split())
    return shown if len(text) <= longest else f"{shown[:longest]}..."


def honoured(keys: str) -> frozenset[str]:
    """Return keys, written with spaces between."""
    return frozenset(keys.split())


def only(keys: str, *values: Any, reason: str) -> dict[str, Only]:
    """Return keys, written with spaces between, of which the same values are supported."""
    return dict.fromkeys(keys.split(), Only(values, reason))


def harmless(keys: str, reason: str) -> dict[str, str]:
    """Return keys, written with spaces between, that are harmless for the same reason."""
    return dict.fromkeys(keys.split(), reason)


def _found(path: Path, where: str, key: str, value: Any) -> str:
    return f"{path}: {where}{cut(key)} = {reprlib.repr(value)}"


def _same(value: Any, allowed: Any) -> bool:
    """Compare two values of JSON, in which true is not 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)
