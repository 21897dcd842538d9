"""`akidb-mlx doctor`, which reports the state of this installation and runs a self-test."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import Annotated, Any

import typer

from akidb_mlx import __version__
from akidb_mlx.catalog import CATALOG
from akidb_mlx.cli.output import Styled, write_json, write_table
from akidb_mlx.errors import AkidbMlxError, ConfigurationError, InferenceError
from akidb_mlx.settings import Settings, config_file, load_settings
from model_cache import ModelCache, ModelCacheError

_PACKAGES = ("mlx", "numpy", "tokenizers", "safetensors", "pydantic", "spacy", "sentencex", "mlx-lm")
# Two of the three mean the same: a model that works puts them closest to each other.
_PROBE = ("A man is playing a guitar.", "Someone plays the guitar.", "The stock market fell sharply today.")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False) -> None:
    """Report the device, versions, settings and models, and time a self-test on the first model found."""
    settings = load_settings()
    cache = settings.open_cache()
    models = {name: _find(cache, record.repo_id) for name, record in CATALOG.items()}
    found = next((name for name, where in models.items() if where["path"]), None)
    backend = _describe_device(settings)
    report: dict[str, Any] = {
        "akidb_mlx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "backend": backend,
        "config_file": None if (file := config_file()) is None else str(file),
        "cache": str(cache.root),
        "models": models,
        "self_test": _self_test(found, settings) if found and "error" not in backend else None,
    }
    if as_json:
        write_json(report)
    else:
        _print_report(report)
    if "error" in backend:
        raise ConfigurationError(backend["error"])
    if found and not report["self_test"]["passed"]:
        raise InferenceError(f"the self-test on {found} failed: {report['self_test']['detail']}")


def _version(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _describe_device(settings: Settings) -> dict[str, Any]:
    """Return what is known of the device, or the error that keeps this machine from computing."""
    from akidb_mlx.runtime import mlx_import

    try:
        mlx_import.prepare(settings.allow_tf32)
        from akidb_mlx.runtime.device import describe

        return {**describe(settings.device)}
    except AkidbMlxError as error:
        return {"error": str(error)}


def _find(cache: ModelCache, repo_id: str) -> dict[str, str | None]:
    try:
        return {"path": str(cache.ensure(repo_id, download=False)), "missing": None}
    except ModelCacheError as error:
        return {"path": None, "missing": str(error)}


def _self_test(model: str, settings: Settings) -> dict[str, Any]:
    """Load a model, time one short text and check that similar texts get similar vectors."""
    from akidb_mlx.service import EmbeddingService  # other commands need not wait for it

    try:
        start = time.perf_counter()
        with EmbeddingService(model, settings=settings.without_dimensions()) as service:
            loaded = time.perf_counter()
            service.embed_array(_PROBE[:1])
            embedded = time.perf_counter()
            first, *others = service.embed_array(_PROBE)
            alike, unlike = (float(other @ first) for other in others)
    except AkidbMlxError as error:
        return {"model": model, "passed": False, "detail": str(error)}
    return {
        "model": model,
        "passed": alike > unlike,
        "detail": f"cosine similarity of similar texts {alike:.3f}, of different texts {unlike:.3f}",
        "load_ms": round((loaded - start) * 1000, 1),
        "one_text_ms": round((embedded - loaded) * 1000, 1),
    }


def _print_report(report: dict[str, Any]) -> None:
    packages = (f"{name} {version or '(not installed)'}" for name, version in report["packages"].items())
    rows: list[tuple[str, str | Styled]] = [
        ("akidb-mlx", f"{report['akidb_mlx']}, Python {report['python']}, {report['platform']}"),
        ("packages", ", ".join(packages)),
        *_describe_backend(report["backend"]),
        ("settings", report["config_file"] or "no file: the home folder is not known (see AKIDB_CONFIG)"),
        ("cache", report["cache"]),
        *(("model", _describe_model(name, where["path"])) for name, where in report["models"].items() if where["path"]),
        ("self-test", _describe_self_test(report)),
    ]
    write_table(("", ""), rows, header=False)


def _describe_backend(backend: dict[str, Any]) -> list[tuple[str, str | Styled]]:
    if "error" in backend:
        return [("device", [("none", "red"), (f": {backend['error']}", "")])]
    slow = "  slow: install OpenBLAS (Debian: apt install libopenblas0-pthread)"
    return [
        ("device", f"{backend['device']} ({backend['device_name']}, {backend['architecture']})"),
        ("float32", f"products {'rounded to TF32' if backend['allow_tf32'] else 'in full precision'}"),
        ("BLAS", [(backend["blas"], ""), (slow if backend["blas"] == "reference" else "", "yellow")]),
    ]


def _describe_model(name: str, path: str) -> Styled:
    record = CATALOG[name]
    return [(f"{name} ({record.description}; {record.licence}): ", ""), ("found", "green"), (f" {path}", "")]


def _describe_self_test(report: dict[str, Any]) -> Styled:
    test = report["self_test"]
    if test is None and "error" in report["backend"]:
        return [("not run", "yellow")]
    if test is None:
        return [("no model found", "yellow"), (f": {report['models']['minilm-l6-v2']['missing']}", "")]
    verdict = ("passed", "green") if test["passed"] else ("failed", "red")
    times = f", loaded in {test['load_ms']} ms, one text in {test['one_text_ms']} ms" if "load_ms" in test else ""
    return [verdict, (f" on {test['model']}: {test['detail']}{times}", "")]
