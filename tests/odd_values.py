"""Changed versions of a JSON value: each part of it replaced by values that no file should hold there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.errors import ModelLoadError

_ODD = (None, True, 0, -1, 10**30, 1.5, "", "x", "\ud800", [], [[]], {}, {"a": 1}, [None])


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*place, key))
    elif isinstance(value, list):
        for number in range(min(len(value), 4)):
            yield from _places(value[number], (*place, number))


def _with(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    changed = json.loads(json.dumps(value))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return changed


def read_odd_versions(path: Path, read: Any) -> int:
    """Read a model with each changed version of a file; return how many were refused, with a short message each."""
    content = json.loads(path.read_text(encoding="utf-8"))
    refused = 0
    for place in _places(content):
        for odd in _ODD:
            path.write_text(json.dumps(_with(content, place, odd)), encoding="utf-8")
            try:
                assert isinstance(read(), Checkpoint)
            except ModelLoadError as error:
                assert len(str(error)) < 1500
                refused += 1
    path.write_text(json.dumps(content), encoding="utf-8")
    return refused
