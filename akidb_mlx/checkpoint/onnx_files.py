"""The ONNX files of a model directory, by name."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path

from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.errors import ConfigurationError, ModelLoadError

FOLDER = "onnx"
# The file that `akidb-mlx export` writes beside a model.
EXPORTED = "exported.onnx"
# The name that exporters give to a model in float32.
USUAL = "model.onnx"
_NAME = re.compile(r"(onnx/)?([A-Za-z0-9][A-Za-z0-9._-]{0,120}?)(\.onnx)?")


def parse_onnx_file(name: object) -> str | None:
    """Return the name of an ONNX file with its ending and without its folder, None where there is none.

    Raises:
        ConfigurationError: it is not such a name.
    """
    if name is None:
        return None
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise ConfigurationError(
            f"onnx_file must be the name of a file in the model's folder onnx, as 'model_fp16.onnx', found "
            f"{reprlib.repr(name)}"
        )
    return f"{found[2]}.onnx"


def find_onnx_file(directory: Path, name: str | None) -> Path | None:
    """Return the ONNX file of a model: that of a name, or else the exported or the usual one; None if it is not there.

    Raises:
        ModelLoadError: the directory cannot be looked at.
    """
    names = [EXPORTED, USUAL] if name is None else [name]
    places = [directory / folder / one for one in names for folder in (FOLDER, "")]
    return next((place for place in places if is_file(place)), None)


def hub_pattern(name: str | None) -> re.Pattern[str]:
    """Return the pattern of the names that an ONNX file, and one with its weights, have in a repository."""
    return re.compile(rf"{FOLDER}/{re.escape(name or USUAL)}(_data|\.data)?")


def require_onnx_file(directory: Path, name: str | None) -> Path:
    """Return the ONNX file of a model; see `find_onnx_file`.

    Raises:
        ModelLoadError: it is not there; the message says which are, and how to make one.
    """
    if (found := find_onnx_file(directory, name)) is not None:
        return found
    others = sorted(path.name for path in directory.glob(f"{FOLDER}/*.onnx"))
    listed = f"; found {', '.join(others)[:200]}: name one with onnx_file" if others else ""
    raise ModelLoadError(
        f"{directory} holds no {name or USUAL} in its folder {FOLDER}{listed}; `akidb-mlx export` makes one"
    )
