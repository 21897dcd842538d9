"""Reading of the JSON files in a model directory, which are not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ModelLoadError


def is_file(path: Path) -> bool:
    """Return whether a file is there.

    Raises:
        ModelLoadError: no file can have such a name, as when it is too long.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise ModelLoadError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ModelLoadError: the file cannot be read, is not JSON, or holds something other than an object.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


def read_json_value(path: Path) -> Any:
    """Read the value, of any type, in a JSON file.

    Raises:
        ModelLoadError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}") from error
