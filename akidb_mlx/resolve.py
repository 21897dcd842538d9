"""From the names that a caller gives to a model's directory and a device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import cast, get_args

from akidb_mlx.catalog import ModelRecord, SummaryModelRecord
from akidb_mlx.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from akidb_mlx.settings import DeviceName, Settings
from model_cache import CorruptModelError, ModelCacheError


def acquire(
    held: ExitStack,
    model: str,
    catalog: Mapping[str, ModelRecord] | Mapping[str, SummaryModelRecord],
    settings: Settings,
    download: bool,
) -> Path:
    """A model's directory, which the cache keeps until `held` is closed.

    Args:
        held: what gives the directory up.
        model: a name of `catalog`, "org/repo", "org/repo@revision" or a directory.
        catalog: the names known without a repository.
        settings: those that say where the cache is.
        download: whether a model that is not on this machine may be fetched.

    Raises:
        ModelNotFoundError: it is not on this machine and was not downloaded.
        ModelLoadError: its files are damaged.
    """
    record = catalog.get(model)
    try:
        cache = settings.open_cache()
        return held.enter_context(cache.acquire(record.repo_id if record else model, download=download))
    except CorruptModelError as error:
        raise ModelLoadError(str(error)) from error
    except ModelCacheError as error:
        known = "" if record else f"; names known without a repository: {', '.join(catalog)}"
        raise ModelNotFoundError(f"{error}{known}") from error


def device_name(device: str | None, settings: Settings) -> DeviceName:
    """The device that a caller named, or else the settings.

    Raises:
        ConfigurationError: there is no such name.
    """
    if device is None:
        return settings.device
    if device not in get_args(DeviceName):
        raise ConfigurationError(f"device must be one of {', '.join(get_args(DeviceName))}, found {device!r}")
    return cast("DeviceName", device)
