"""From the names that a caller gives to a model's directory and a device."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args

from akidb_mlx.catalog import ModelRecord, SummaryModelRecord
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError, ModelNotFoundError
from akidb_mlx.settings import BackendName, DeviceName, Settings
from model_cache import (
    CorruptModelError,
    InvalidModelNameError,
    ModelCacheError,
    ModelUnavailableError,
    Weights,
)

# From this similarity on, by difflib's measure, a name is taken for one of the catalogue with a slip in it.
_SIMILAR = 0.75
# So many names are listed in an error.
_FEW = 5


def acquire_directory(
    resources: ExitStack,
    model_name: str,
    catalog: Mapping[str, ModelRecord] | Mapping[str, SummaryModelRecord],
    settings: Settings,
    download: bool,
    weights: Weights = "required",
) -> Path:
    """Return a model's directory, which the cache keeps until `resources` is closed.

    Args:
        resources: releases the directory when it is closed.
        model_name: a name of `catalog`, "org/repo", "org/repo@revision" or a directory.
        catalog: the names known without a repository.
        settings: they name the cache.
        download: whether a model that is not on this machine may be fetched.
        weights: what is done about an encoder's weights; see `model_cache.Weights`.

    Raises:
        ModelNotFoundError: it is not on this machine and was not downloaded.
        ModelLoadError: its files are damaged.
    """
    record = catalog.get(model_name)
    try:
        cache = settings.open_cache()
        name = record.repo_id if record else model_name
        return resources.enter_context(cache.acquire(name, download=download, weights=weights))
    except CorruptModelError as error:
        raise ModelLoadError(str(error)) from error
    except ModelCacheError as error:
        is_about_the_name = isinstance(error, (InvalidModelNameError, ModelUnavailableError))
        known = f"; {_suggest(model_name, catalog)}" if is_about_the_name and not record else ""
        raise ModelNotFoundError(f"{error}{known}") from error


def is_gguf(model_name: str) -> bool:
    """Return whether a name is that of a GGUF file, on this machine or in a repository."""
    return model_name.lower().endswith(".gguf")


def acquire_gguf(resources: ExitStack, model_name: str, settings: Settings, download: bool) -> Path:
    """Return a GGUF file, which the cache keeps until `resources` is closed.

    Args:
        resources: releases the file when it is closed.
        model_name: a path, "org/repo:file.gguf" or "org/repo@revision:file.gguf".
        settings: they name the cache.
        download: whether a file that is not on this machine may be fetched.

    Raises:
        ModelNotFoundError: it is not on this machine and was not downloaded.
        ModelLoadError: it is damaged.
    """
    path = Path(model_name)
    _, colon, name = model_name.partition(":")
    if is_file(path) or not colon:
        if not is_file(path):
            raise ModelNotFoundError(
                f"{cut(model_name)} is not a file; one of a repository is named as in org/repo:file.gguf"
            )
        return path.resolve()
    try:
        cache = settings.open_cache()
        return resources.enter_context(cache.acquire(model_name, download=download)) / name
    except CorruptModelError as error:
        raise ModelLoadError(str(error)) from error
    except ModelCacheError as error:
        raise ModelNotFoundError(str(error)) from error


def fetch_files(directory: Path, wanted: re.Pattern[str], settings: Settings) -> None:
    """Download more files of a model that the cache has; those of any other model are left as they are.

    Raises:
        ModelNotFoundError: the files cannot be downloaded, or the repository has none of such names.
        ModelLoadError: they arrived damaged.
    """
    cache = settings.open_cache()
    if not directory.is_relative_to(cache.root.resolve()):
        return
    try:
        cache.fetch_more(directory, wanted)
    except CorruptModelError as error:
        raise ModelLoadError(str(error)) from error
    except ModelCacheError as error:
        raise ModelNotFoundError(f"{error}; `akidb-mlx export` makes an ONNX file of a model") from error


def check_writable(model_name: str, directory: Path, settings: Settings) -> None:
    """Refuse to add files to a model of a package or of another program, which stays as it is.

    Raises:
        InvalidInputError: it is neither in the cache nor a directory that the caller named.
    """
    if not Path(model_name).is_dir() and not directory.is_relative_to(settings.open_cache().root.resolve()):
        raise InvalidInputError(
            f"{model_name} lies in {directory}, which is not in the cache, and is not changed: name a folder with -o"
        )


@contextmanager
def beside(model_name: str, directory: Path, output: Path | None, settings: Settings) -> Iterator[Path]:
    """Yield the folder to write files of a model to, under the names that they have below its directory.

    In the cache they are recorded, verified and removed with the model.

    Args:
        model_name: the name that the caller gave.
        directory: its directory, which is held.
        output: a folder that the caller named instead; None for the model's own.
        settings: they name the cache.
    """
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output
    elif Path(model_name).is_dir():
        yield directory
    else:
        with settings.open_cache().attaching(directory) as folder:
            yield folder


def _suggest(model_name: str, catalog: Collection[str]) -> str:
    """Return the names of the catalogue that a caller may have meant, or where to see them."""
    similar = get_close_matches(model_name.lower(), catalog, cutoff=_SIMILAR)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    if len(catalog) <= _FEW:
        return f"names known without a repository: {', '.join(catalog)}"
    return "`akidb-mlx models` lists the names known without a repository"


def resolve_device(device: str | None, settings: Settings) -> DeviceName:
    """Return the device that a caller named, or else that of the settings.

    Raises:
        ConfigurationError: there is no such name.
    """
    if device is None:
        return settings.device
    return cast("DeviceName", _one_of("device", device, get_args(DeviceName)))


def resolve_backend(
    model_name: str, backend: str | None, settings: Settings, onnx_file: str | None = None
) -> BackendName:
    """Return the backend that a caller named, or else that of the settings.

    A caller who names an ONNX file asks for ONNX Runtime, and one who names a GGUF file for llama.cpp.

    Raises:
        ConfigurationError: there is no such name, or the backend does not compute such a file.
    """
    chosen = settings.backend if backend is None else _one_of("backend", backend, get_args(BackendName))
    if is_gguf(model_name):
        if onnx_file is not None or chosen not in ("auto", "llama.cpp"):
            raise ConfigurationError(
                f"{cut(model_name)} is a GGUF file, which only llama.cpp computes: use backend llama.cpp or auto, and "
                f"no onnx_file; found backend {chosen}"
            )
        return "llama.cpp"
    if chosen == "llama.cpp":
        raise ConfigurationError(
            f"backend llama.cpp computes GGUF files, named as in org/repo:file.gguf, found {cut(model_name)!r}"
        )
    if onnx_file is None:
        return cast("BackendName", chosen)
    if chosen == "mlx":
        raise ConfigurationError(f"onnx_file is {onnx_file!r}, which backend mlx cannot compute: use onnx or auto")
    return "onnx"


def _one_of(argument: str, found: str, names: Collection[str]) -> str:
    if found not in names:
        raise ConfigurationError(f"{argument} must be one of {', '.join(names)}, found {found!r}")
    return found
