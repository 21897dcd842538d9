"""Reading and writing of the JSON files that lie beside a model's weights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import ValidationError

from akidb_mlx.errors import ModelLoadError

# The file of the fidelity card.
CARD = "akidb_fidelity.json"
_LONGEST_SHOWN = 80


def read_bounded(path: Path, most: int) -> bytes | None:
    """Return the content of a file; None where there is no such file.

    Raises:
        ModelLoadError: it cannot be read, is not a file, or has more than `most` bytes.
    """
    try:
        # A FIFO would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelLoadError(f"{path} is not a file")
            content = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelLoadError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise ModelLoadError(f"{path} has more than {most} bytes")
    return content


def write_text(path: Path, content: str) -> None:
    """Replace a file in one step; another name of its content, as in a cache of links, is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def first_fault(error: ValidationError) -> str:
    """Return the first fault in words, with the value that was found, cut."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(map(str, fault["loc"]))
    found = " ".join(repr(fault["input"]).split())
    shown = found if len(found) <= _LONGEST_SHOWN else f"{found[:_LONGEST_SHOWN]}..."
    return f"{where + ': ' if where else ''}{fault['msg'][:200]} (found {shown})"
