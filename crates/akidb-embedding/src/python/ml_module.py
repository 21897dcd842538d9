"""Finds the module of functions that a PyMlBridge calls."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

FUNCTIONS = "generate_embedding", "generate_embeddings_batch", "extract_entities", "summarize", "health_check"


def find(name: str, folder: str | None) -> tuple[Any, ...]:
    """Import `name`, from `folder` if that is not None; its functions in the order above, and its `close` or None."""
    module = importlib.import_module(name) if folder is None else _in_folder(name, folder)
    missing = [function for function in FUNCTIONS if not callable(getattr(module, function, None))]
    if missing:
        where = getattr(module, "__file__", None) or name
        raise ImportError(f"{where} has no function {', '.join(missing)}; it must have {', '.join(FUNCTIONS)}")
    return (*(getattr(module, function) for function in FUNCTIONS), getattr(module, "close", None))


def _in_folder(name: str, folder: str) -> ModuleType:
    # Under a name of its own, so that two folders may each have an `ml_funcs`.
    alias = f"{name}_{hashlib.sha256(folder.encode()).hexdigest()[:16]}"
    if alias in sys.modules:
        return sys.modules[alias]
    if folder not in sys.path:
        sys.path.insert(0, folder)  # for the modules beside it
    importlib.invalidate_caches()
    found = importlib.machinery.PathFinder.find_spec(name, [folder])
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"looked for {name}.py or {name}/__init__.py in {folder} and found neither")
    spec = importlib.util.spec_from_file_location(
        alias, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{found.origin} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module
