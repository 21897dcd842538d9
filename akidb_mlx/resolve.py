"""From the names that a caller gives to a model's directory and a device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import cast, get_args

from akidb_mlx.catalog import ModelRecord, RerankerRecord, SummaryModelRecord
from akidb_mlx.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from akidb_mlx.settings import DeviceName, Settings
from model_cache import CorruptModelError, ModelCacheError


def acquire_directory(
    resources: ExitStack,
    model_name: str,
    catalog: Mapping[str, ModelRecord] | Mapping[str, SummaryModelRecord] | Mapping[str, RerankerRecord],
    settings: Settings,
    download: bool,
) -> Path:
    """Return a model's directory, which the cache keeps until `resources` is closed.

    Args:
        resources: releases the directory when it is closed.
        model_name: a name of `catalog`, "org/repo", "org/repo@revision" or a directory.
        catalog: the names known without a repository.
        settings: they name the cache.
        download: whether a model that is not on this machine may be fetched.

    Raises:
        ModelNotFoundError: it is not on this machine and was not downloaded.
        ModelLoadError: its files are damaged.
    """
    record = catalog.get(model_name)
    try:
        cache = settings.open_cache()
        return resources.enter_context(cache.acquire(record.repo_id if record else model_name, download=download))
    except CorruptModelError as error:
        raise ModelLoadError(str(error)) from error
    except ModelCacheError as error:
        known = "" if record else f"; names known without a repository: {', '.join(catalog)}"
        raise ModelNotFoundError(f"{error}{known}") from error


def resolve_device(device: str | None, settings: Settings) -> DeviceName:
    """Return the device that a caller named, or else that of the settings.

    Raises:
        ConfigurationError: there is no such name.
    """
    if device is None:
        return settings.device
    if device not in get_args(DeviceName):
        raise ConfigurationError(f"device must be one of {', '.join(get_args(DeviceName))}, found {device!r}")
    return cast("DeviceName", device)
