"""The command line `akidb-mlx`, which is also `python -m akidb_mlx`.

Results go to standard output and everything else to standard error. Exit status: 0, 1 for a failure and 2 for wrong
usage, both explained on one line of standard error; 130 after Ctrl-C and 141 where the reader of the output has left.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from akidb_mlx import __version__
from akidb_mlx.cli import models
from akidb_mlx.cli.catalog import models as show_catalog
from akidb_mlx.cli.compare import compare
from akidb_mlx.cli.database import database
from akidb_mlx.cli.doctor import doctor
from akidb_mlx.cli.embed import embed
from akidb_mlx.cli.embed_files import embed_files
from akidb_mlx.cli.entities import entities
from akidb_mlx.cli.evaluate import evaluate
from akidb_mlx.cli.export import export
from akidb_mlx.cli.output import report, write_line
from akidb_mlx.cli.push import push
from akidb_mlx.cli.quantize import quantize
from akidb_mlx.cli.rerank import rerank
from akidb_mlx.cli.route import route
from akidb_mlx.cli.serve import serve
from akidb_mlx.cli.service import service
from akidb_mlx.cli.stdio import stdio
from akidb_mlx.cli.streams import open_streams, require_utf8
from akidb_mlx.cli.summarize import summarize
from akidb_mlx.cli.verify import verify
from akidb_mlx.errors import AkidbMlxError, InvalidInputError
from model_cache import ModelCacheError

# typer carries a copy of click, and of its errors names only this one, which is below the one of all wrong usage.
_UsageError: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130

app = typer.Typer(
    name="akidb-mlx",
    help="Compute text embeddings on this machine with MLX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(embed)
app.command()(embed_files)
app.command()(rerank)
app.command()(entities)
app.command()(summarize)
app.command()(serve)
app.add_typer(service, name="service")
app.add_typer(route, name="route")
app.add_typer(database, name="db")
app.command()(models.pull)
app.command("models")(show_catalog)
app.command("list")(models.show_list)
for command in (
    models.show,
    models.path,
    models.rm,
    models.prune,
    verify,
    models.pin,
    models.unpin,
    models.update,
):
    app.command()(command)
app.command()(evaluate)
app.command()(compare)
app.command()(export)
app.command()(quantize)
app.command()(push)
app.command()(stdio)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"akidb-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Compute text embeddings on this machine with MLX."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and turn errors into exit statuses; without arguments, run that of this process."""
    require_utf8()
    open_streams()
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        _check_encoding(arguments)
        return int(app(arguments, prog_name="akidb-mlx", standalone_mode=False) or 0)
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except _UsageError as error:
        if message := " ".join(error.format_message().split()):  # there is none where help was shown instead
            report(f"{message} (see `{error.ctx.command_path if error.ctx else 'akidb-mlx'} --help`)")
        return int(error.exit_code)
    except (AkidbMlxError, ModelCacheError, OSError, UnicodeError, RecursionError, MemoryError) as error:
        report(str(error) or type(error).__name__)
        return 1


def _check_encoding(arguments: list[str]) -> None:
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"argument {number} is not UTF-8: {os.fsencode(argument)[:60]!r}") from error
