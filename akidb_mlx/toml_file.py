"""Reads files in TOML."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# tomli is what Python 3.10 has instead.
_toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML in UTF-8.
        RecursionError: it is nested too deeply.
    """
    content: dict[str, Any] = _toml.loads(path.read_text(encoding="utf-8"))
    return content
