"""The import of mlx_lm, which may change nothing that belongs to the whole process."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any, cast

from akidb_mlx.errors import ConfigurationError

# The module that lowers how many files the process may open, when it is imported. The hard limit cannot be raised
# again, so it may not be lowered at all.
_LOWERS_LIMITS = "mlx_lm.utils"


def import_mlx_lm() -> tuple[Any, Any, Any]:
    """Import mlx_lm, and return its functions `generate_step`, `load` and `dequantize_model`.

    Raises:
        ConfigurationError: mlx_lm cannot be imported.
    """
    if not any(isinstance(finder, _LimitKeepingFinder) for finder in sys.meta_path):
        # It stays: taking it away could have another thread, which goes through the list, pass over its neighbour.
        sys.meta_path.insert(0, _LimitKeepingFinder())
    try:
        from mlx_lm.generate import generate_step
        from mlx_lm.utils import dequantize_model, load
    except ImportError as error:
        raise ConfigurationError(
            f"a generative model needs mlx_lm, which cannot be imported ({error}): run `pip install "
            "'akidb-mlx[summarize]'` on Python 3.11 or newer, or use mode='extractive'"
        ) from error
    return _keep_cache(cast("FunctionType", generate_step)), load, dequantize_model


def _keep_cache(function: FunctionType) -> FunctionType:
    """Return a copy of a function of mlx_lm's that does not empty MLX's cache of buffers.

    MLX has one cache for all models of a process, and mlx_lm empties it at the beginning of each answer. The cache is
    bounded already, and given back while nothing happens.
    """
    own = ModuleType("mlx.core")
    own.__dict__.update(vars(function.__globals__["mx"]), clear_cache=lambda: None)
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, "mx": own},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class _LimitKeepingFinder(MetaPathFinder):
    """Finds the one module that lowers limits, and has it executed without."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LOWERS_LIMITS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LimitKeepingLoader(spec.loader)
        return spec


class _LimitKeepingLoader(Loader):
    """Executes a module that imports a `resource` of its own, whose `setrlimit` does nothing.

    Nothing changes for the rest of the process: the module `resource` and the functions that import are left as they
    are.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_without_limits}
        self._loader.exec_module(module)


def _import_without_limits(name: str, *arguments: Any, **keywords: Any) -> ModuleType:
    module = builtins.__import__(name, *arguments, **keywords)
    if name != "resource":
        return module
    own = ModuleType(name, module.__doc__)
    own.__dict__.update(vars(module), setrlimit=lambda *_: None)
    return own
