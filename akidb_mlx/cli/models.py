"""The commands for the models on disk, as `pull`, `list`, `verify` and `prune`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from akidb_mlx.catalog import ALL_MODELS, SUMMARY_CATALOG
from akidb_mlx.cli.output import Styled, is_terminal, report, write_json, write_line, write_table
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.settings import load_settings
from model_cache import CachedModel, ModelCache, ModelCacheError

if TYPE_CHECKING:
    from akidb_mlx.fidelity.card import Card

_Names = Annotated[
    list[str], typer.Argument(help="Models: catalogue names, org/repo, org/repo@revision or org/repo:file.gguf.")
]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def pull(names: _Names, as_json: _Json = False) -> None:
    """Download models. A model that is on this machine already costs no request."""
    cache = _cache()
    _each(names, as_json, lambda name: {"path": str(cache.ensure(repo_of(name)))}, "{name}: {path}")


def path(
    name: Annotated[str, typer.Argument(help="Catalogue name, org/repo or org/repo@revision.")], as_json: _Json = False
) -> None:
    """Print the directory of a model on this machine."""
    found = str(_cache().ensure(repo_of(name), download=False))
    if as_json:
        write_json({"name": name, "path": found})
    else:
        write_line(found)


def show_list(
    fidelity: Annotated[bool, typer.Option("--fidelity", help="Show the fidelity of models that have a card.")] = False,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Ask the Hub, and list the models that it has a newer version of.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """List the models in the cache."""
    cache = _cache()
    models = cache.list()
    newer: dict[str, str] = {}
    if outdated:
        newer = {model.name: commit for model in models if (commit := _newer(cache, model))}
        models = [model for model in models if model.name in newer]
    if as_json:
        plain = [{**_plain(model), "newer": newer.get(model.name)} for model in models]
        if fidelity:
            plain = [one | {"fidelity": _card(model)} for one, model in zip(plain, models, strict=True)]
        write_json(plain)
        return
    columns = ["model", "commit", "refs", "size", "last used", "", *(["fidelity"] if fidelity else [])]
    rows: list[list[str | Styled]] = [
        [model.repo_id, model.commit[:12], " ".join(model.refs), *_cells(model, newer.get(model.name))]
        for model in models
    ]
    if fidelity:
        for row, model in zip(rows, models, strict=True):
            row.append(_fidelity(model))
    if models:
        write_table(columns, rows)
    if is_terminal():
        count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
        write_line(f"{count}, {_size(sum(model.size for model in models))} in {cache.root}")


def show(name: Annotated[str, typer.Argument(help="A model in the cache.")], as_json: _Json = False) -> None:
    """Show the details of a model in the cache."""
    models = _cache().find(repo_of(name))
    if as_json:
        write_json([{**_plain(model), "fidelity": _card(model)} for model in models])
        return
    for model in models:
        size, used, _ = _cells(model)
        details = {**_plain(model), "size": size, "last_used": used, "fidelity": _fidelity(model)}
        write_table(("", ""), ((key, _detail(value)) for key, value in details.items()), header=False)


def rm(names: _Names, as_json: _Json = False) -> None:
    """Delete models, unless they are pinned or in use."""
    cache = _cache()

    def remove(name: str) -> dict[str, Any]:
        gone = cache.remove(repo_of(name))
        freed = sum(model.size for model in gone)
        return {"removed": [model.name for model in gone], "freed": freed, "size": _size(freed)}

    _each(names, as_json, remove, "{name}: freed {size}")


def prune(
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", min=0, help="Bytes to keep. Default: the limit of the cache.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be deleted, and delete nothing.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Delete the least recently used models until the rest fit. Models that are pinned or in use stay."""
    plan = _cache().prune(max_bytes, dry_run=dry_run)
    if as_json:
        write_json(asdict(plan))
        return
    rows = ((removal.name, _size(removal.size), removal.reason) for removal in plan.removals)
    write_table(("", "", ""), rows, header=False)
    if is_terminal():
        write_line(f"{'would free' if dry_run else 'freed'} {_size(plan.freed)}")
    if plan.short:
        report(f"{_size(plan.short)} over the limit, taken by models that are pinned or in use")


def pin(names: _Names, as_json: _Json = False) -> None:
    """Protect models from being deleted to make room."""
    _pin(names, as_json, pinned=True)


def unpin(names: _Names, as_json: _Json = False) -> None:
    """Allow models to be deleted to make room again."""
    _pin(names, as_json, pinned=False)


def update(
    names: Annotated[list[str] | None, typer.Argument(help="Models to update; without any, all in the cache.")] = None,
    as_json: _Json = False,
) -> None:
    """Download newer versions of models. The old version stays until it is deleted."""
    cache = _cache()

    def fetch(name: str) -> dict[str, Any]:
        before, now = cache.update(repo_of(name))
        return {"before": before or None, "now": now, "state": "up to date" if before == now else f"now at {now[:12]}"}

    chosen = names or sorted({model.repo_id for model in cache.list() if "main" in model.refs})
    _each(chosen, as_json, fetch, "{name}: {state}")


def _pin(names: list[str], as_json: bool, *, pinned: bool) -> None:
    cache = _cache()

    def change(name: str) -> dict[str, Any]:
        changed = cache.pin(repo_of(name), pinned=pinned)
        return {"models": [model.name for model in changed], "pinned": pinned}

    _each(names, as_json, change, "{name}: pinned" if pinned else "{name}: not pinned")


def _each(names: Iterable[str], as_json: bool, work: Callable[[str], dict[str, Any]], line: str) -> None:
    """Do `work` for each name, and write its result as `line`; exit with status 1 at the end if one failed."""
    results: list[dict[str, Any]] = []
    for name in names:
        try:
            results.append({"name": name, "error": None, **work(name)})
            if not as_json:
                write_line(line.format(**results[-1]))
        except ModelCacheError as error:
            results.append({"name": name, "error": str(error)})
            report(str(error))
    if as_json:
        write_json(results)
    if any(result["error"] for result in results):
        raise typer.Exit(1)


def _cache() -> ModelCache:
    return load_settings().open_cache()


def repo_of(name: str) -> str:
    """Return the repository that a catalogue's name stands for, with the same revision."""
    short, at, revision = name.partition("@")
    record = ALL_MODELS.get(short) or SUMMARY_CATALOG.get(short)
    return record.repo_id + at + revision if record else name


def _newer(cache: ModelCache, model: CachedModel) -> str | None:
    """Return the commit that the Hub has for a model that was "main" when it came, if that is another one now."""
    if "main" not in model.refs:
        return None
    before, now = cache.update(model.repo_id, dry_run=True)
    return now if before != now else None


def _plain(model: CachedModel) -> dict[str, Any]:
    return {**asdict(model), "path": str(model.path), "refs": list(model.refs), "damaged": list(model.damaged)}


def _card(model: CachedModel) -> dict[str, Any] | None:
    card = _read_card(model)
    return card.plain() if card else None


def _fidelity(model: CachedModel) -> str:
    card = _read_card(model)
    return card.summary if card else ""


def _read_card(model: CachedModel) -> Card | None:
    """Return the fidelity card of a model; one that is damaged is reported."""
    from akidb_mlx.fidelity.card import read_card

    try:
        return read_card(model.path)
    except ModelLoadError as error:
        report(str(error))
        return None


def _detail(value: Any) -> str:
    shown = ", ".join(value) if isinstance(value, list) else value
    return "-" if shown in ("", None) else str(shown)


def _cells(model: CachedModel, newer: str | None = None) -> tuple[str, str, Styled]:
    used = datetime.fromtimestamp(model.last_used, tz=timezone.utc).astimezone()
    marks = [
        ("pinned" if model.pinned else "", ""),
        ("in use" if model.in_use else "", ""),
        ("damaged" if model.damaged else "", "red"),
        (f"newer: {newer[:12]}" if newer else "", "yellow"),
    ]
    spaced = [part for mark in marks if mark[0] for part in ((" ", ""), mark)]
    return _size(model.size), f"{used:%Y-%m-%d %H:%M}", spaced[1:]


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)
