"""The command line `akidb-mlx`, which is also `python -m akidb_mlx`.

Results go to standard output and everything else to standard error. Exit status: 0, 1 for a failure explained on one
line of standard error, 2 for wrong usage.
"""

from __future__ import annotations

import io
import logging
import sys

import typer

from akidb_mlx import __version__
from akidb_mlx.cli import models
from akidb_mlx.cli.doctor import doctor
from akidb_mlx.cli.embed import embed
from akidb_mlx.cli.entities import entities
from akidb_mlx.cli.summarize import summarize
from akidb_mlx.errors import AkidbMlxError
from akidb_mlx.runtime.descriptors import open_standard_descriptors
from model_cache import ModelCacheError

app = typer.Typer(
    name="akidb-mlx",
    help="Compute text embeddings on this machine with MLX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(embed)
app.command()(entities)
app.command()(summarize)
app.command()(models.pull)
app.command("list")(models.show_list)
for command in (
    models.show,
    models.path,
    models.rm,
    models.prune,
    models.verify,
    models.pin,
    models.unpin,
    models.update,
):
    app.command()(command)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"akidb-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Compute text embeddings on this machine with MLX."""


def main() -> None:
    """Run the command line and turn errors into exit statuses."""
    open_standard_descriptors()  # before a model's file takes the number of a closed one, which others write to
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for texts that the locale has no characters for
    logging.basicConfig(format="akidb-mlx: %(message)s", level=logging.WARNING)
    try:
        app()
    except (AkidbMlxError, ModelCacheError) as error:
        typer.echo(f"akidb-mlx: {error}", err=True)
        sys.exit(1)
