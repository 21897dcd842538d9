"""modules.json and router_config.json: the modules of a model, and the routes that a text may take through them."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.files import is_file, read_json, read_json_value
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.module_keys import MODULE_KEYS, ROUTER_KEYS, ROUTER_PARAMETER_KEYS
from akidb_mlx.errors import ModelLoadError

_LIBRARY = "sentence_transformers."
_ROUTERS = ("Router", "Asym")
_SUPPORTED = "Transformer, Pooling, and then any of Dense, LayerNorm, Normalize, Dropout; a Router over such modules"
AFTER_POOLING = ("Dense", "LayerNorm", "Normalize", "Dropout")
# The roles of a text by which a route is chosen: those of `encode_query` and `encode_document`, and none.
_TASKS = ("query", "document", None)
# The routes of a model that has one for all texts.
EVERY_ROLE: Mapping[str | None, str] = dict.fromkeys(_TASKS, "")


@dataclass(frozen=True)
class Module:
    """A module: the name of its class, and the folder of its files."""

    kind: str
    folder: Path


@dataclass(frozen=True)
class ModuleList:
    """The modules of a model.

    Attributes:
        listed: whether modules.json is there.
        chains: for each route the modules that a text passes, from a Transformer and a Pooling on; a model without a
            Router has one route, "".
        routes: the route of a text for each role that has one: "query", "document" or None.
        routed_first: whether the first module is a Router, so that each route has a Transformer of its own.
    """

    listed: bool
    chains: Mapping[str, tuple[Module, ...]]
    routes: Mapping[str | None, str]
    routed_first: bool = False

    def beginning_in(self, folder: Path) -> ModuleList:
        """Return those modules whose route begins in a folder."""
        return replace(self, chains={route: chain for route, chain in self.chains.items() if chain[0].folder == folder})


def read_modules(directory: Path) -> ModuleList:
    """Read modules.json and the configuration of a Router in it.

    Raises:
        ModelLoadError: a file is malformed, or lists modules that are not supported, or a folder outside.
    """
    path = directory / "modules.json"
    if not is_file(path):
        unlisted = (Module("Transformer", directory), Module("Pooling", directory / "1_Pooling"))
        return ModuleList(False, {"": unlisted}, EVERY_ROLE)
    found = route_modules(path)
    for chain in found.chains.values():
        _check_chain(path, chain)
    return found


def route_modules(path: Path) -> ModuleList:
    """Return the modules that modules.json lists, and the routes through them, whatever their kinds.

    Raises:
        ModelLoadError: a file is malformed, or names a folder outside.
    """
    modules = list_modules(path)
    routers = [place for place, module in enumerate(modules) if module.kind in _ROUTERS]
    chains, routes = {"": modules}, EVERY_ROLE
    if routers:
        place = routers[0]
        routed, routes = _read_router(modules[place].folder)
        chains = {route: (*modules[:place], *routed[route], *modules[place + 1 :]) for route in routes.values()}
    return ModuleList(True, chains, routes, routed_first=routers[:1] == [0])


def list_modules(path: Path) -> tuple[Module, ...]:
    """Return the modules that modules.json lists, in order.

    Raises:
        ModelLoadError: it is malformed, or names a folder outside.
    """
    entries = read_json_value(path)
    try:
        found = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (TypeError, KeyError) as error:
        raise ModelLoadError(f"{path} must be a list of objects with `type` and `path`") from error
    for number, entry in enumerate(entries):
        MODULE_KEYS.check(path, entry, f"{number}.")
    return tuple(_module(path, path.parent, kind, folder) for kind, folder in found)


def _module(path: Path, parent: Path, kind: str, folder: str) -> Module:
    below = Path(folder)
    if below.is_absolute() or ".." in below.parts:
        raise ModelLoadError(f"{path}: {cut(folder)!r} is not a folder inside the model directory")
    return Module(kind.rpartition(".")[2] if kind.startswith(_LIBRARY) else kind, parent / below)


def _check_chain(path: Path, chain: tuple[Module, ...]) -> None:
    """Check that modules are of the supported kinds, in a supported order."""
    kinds = [module.kind for module in chain]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind not in AFTER_POOLING for kind in kinds[2:]):
        raise ModelLoadError(f"{path} lists {cut(', '.join(kinds)) or 'nothing'}; supported: {_SUPPORTED}")


def _read_router(folder: Path) -> tuple[dict[str, tuple[Module, ...]], dict[str | None, str]]:
    """Return the modules of each route of a Router, and the route of each role that has one."""
    path = folder / "router_config.json"
    path = path if is_file(path) else folder / "config.json"  # of the first versions
    config = read_json(path)
    ROUTER_KEYS.check(path, config)
    types: Any = config.get("types")
    structure: Any = config.get("structure")
    parameters: Any = config.get("parameters")
    if not (
        _is_strings(types)
        and isinstance(structure, dict)
        and structure
        and all(isinstance(ids, list) and all(one in list(types) for one in ids) for ids in structure.values())
        and isinstance(parameters, dict)
    ):
        raise ModelLoadError(
            f"{path} must hold `types` (classes by the names of modules), `structure` (lists of those names by route) "
            "and `parameters`"
        )
    ROUTER_PARAMETER_KEYS.check(path, parameters, "parameters.")
    modules = {route: tuple(_module(path, folder, types[one], one) for one in ids) for route, ids in structure.items()}
    return modules, _choose_routes(path, tuple(structure), parameters)


def _choose_routes(path: Path, names: tuple[str, ...], parameters: Mapping[str, Any]) -> dict[str | None, str]:
    """Return the route of each role, as the reference finds it for a text; a role that it refuses is left out."""
    mappings = _read_mappings(path, parameters.get("route_mappings"))
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = names[0]
    routes: dict[str | None, str] = {}
    for task in _TASKS:
        keys = ((task, "text"), (task, None), (None, "text"), (None, None))
        route = next((mappings[key] for key in keys if key in mappings), None)
        if route is None:
            route = next((name for name in (task, "text") if name in names), default if task is None else None)
        if route is not None:
            if route not in names:
                raise ModelLoadError(
                    f"{path}: the route {reprlib.repr(route)} is none of its routes: {cut(', '.join(names))}"
                )
            routes[task] = route
    if not routes:
        raise ModelLoadError(f"{path}: no route is for texts: {cut(', '.join(names))}")
    return routes


def _read_mappings(path: Path, stored: Any) -> dict[Any, str]:
    """Return route_mappings, whose keys are pairs of a role and a kind of input, written as Python does."""
    if not stored:
        return {}
    try:
        pairs = {key: ast.literal_eval(key) for key in stored}
        if not _is_strings(stored) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs.values()):
            raise ValueError("not pairs")
        return {pair: stored[key] for key, pair in pairs.items()}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ModelLoadError(
            f"{path}: route_mappings must map pairs such as \"('query', None)\" to routes, found {reprlib.repr(stored)}"
        ) from error


def _is_strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
