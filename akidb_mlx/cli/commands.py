"""The commands of `akidb-mlx`, of which only those that are asked for are imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import typer

from akidb_mlx import __version__
from akidb_mlx.cli.output import write_line

# Each command's module below `akidb_mlx.cli`, and its function or group of commands there, in the order of the help.
_PLACES = {
    "embed": "embed.embed",
    "embed-files": "embed_files.embed_files",
    "rerank": "rerank.rerank",
    "entities": "entities.entities",
    "summarize": "summarize.summarize",
    "serve": "serve.serve",
    "service": "service.service",
    "route": "route.route",
    "db": "database.database",
    "pull": "models.pull",
    "models": "catalog.models",
    "list": "models.show_list",
    "show": "models.show",
    "path": "models.path",
    "rm": "models.rm",
    "prune": "models.prune",
    "verify": "verify.verify",
    "pin": "models.pin",
    "unpin": "models.unpin",
    "update": "models.update",
    "evaluate": "evaluate.evaluate",
    "compare": "compare.compare",
    "export": "export.export",
    "quantize": "quantize.quantize",
    "push": "push.push",
    "stdio": "stdio.stdio",
    "doctor": "doctor.doctor",
}


def create_app(names: Iterable[str] = tuple(_PLACES)) -> typer.Typer:
    """Return the command line with some of its commands, or with all of them.

    typer reads the signature of every command that it is given, which for all of them takes longer than the imports of
    most.
    """
    app = typer.Typer(
        name="akidb-mlx",
        help="Compute text embeddings on this machine with MLX.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name in names:
        module, _, attribute = _PLACES[name].partition(".")
        command: Any = getattr(import_module(f"akidb_mlx.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def select_commands(arguments: list[str]) -> Iterable[str]:
    """Return the names of the commands that arguments may mean: one, or all where they begin with none's name."""
    return arguments[:1] if arguments and arguments[0] in _PLACES else _PLACES


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"akidb-mlx {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Compute text embeddings on this machine with MLX."""
