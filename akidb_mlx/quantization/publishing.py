"""The folder of a new model, which appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from akidb_mlx.errors import ConfigurationError, InvalidInputError
from model_cache.files import list_names, sync


def check_free(output: Path) -> None:
    """Refuse a folder that is there already.

    Raises:
        InvalidInputError: it is.
    """
    if os.path.lexists(output):
        raise InvalidInputError(f"{output} is there already, and nothing is overwritten: name another folder")


@contextmanager
def publishing(output: Path, expected_bytes: int) -> Iterator[Path]:
    """Lend a temporary folder that takes its final name when the block has ended, and goes if it raises.

    Raises:
        InvalidInputError: the folder is there when the block has ended.
        ConfigurationError: the disk is full, or has less space than is expected to be needed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < expected_bytes:
        raise ConfigurationError(
            f"{output}: the model takes about {expected_bytes} bytes, and the disk has {free} left: free some, or "
            "choose a folder on another"
        )
    temporary = output.with_name(f".{output.name}.{os.getpid()}.{os.urandom(4).hex()}")
    temporary.mkdir()
    try:
        yield temporary
        for name in list_names(temporary):
            sync(temporary / name)
        check_free(output)  # a rename would take the place of an empty folder
        temporary.rename(output)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigurationError(
                f"{output} could not be written, and nothing of it is left: {error.strerror}"
            ) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(output.parent)
