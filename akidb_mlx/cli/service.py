"""`akidb-mlx service`, which has the server start with the user's session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from akidb_mlx.cli.output import report, write_json, write_table
from akidb_mlx.cli.serve import missing_extra
from akidb_mlx.errors import ConfigurationError
from akidb_mlx.supervision import find_supervisor

service = typer.Typer(help="Have the server start with your session, as a launchd agent or a systemd user unit.")


@service.command()
def install(
    config: Annotated[
        Path, typer.Option(envvar="AKIDB_SERVE_CONFIG", help="The server's TOML file; all options must be in it.")
    ],
) -> None:
    """Write the service's file and start the server, now and with every session. A service that is there is replaced.

    A service does not see the shell's environment, so the options, and paths in them, must be in the file.
    """
    try:
        from akidb_mlx.server.config import load_config
    except ImportError as error:
        raise missing_extra(error) from error
    loaded = load_config(config, {})
    report(f"wrote {find_supervisor().install(config)}; the server will answer at port {loaded.port} of {loaded.host}")


@service.command()
def uninstall() -> None:
    """Stop the server and remove the service's file."""
    report("the service is removed" if find_supervisor().uninstall() else "there is no service")


@service.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False) -> None:
    """Show whether the service is installed and runs. Exit status 1 if it does not run."""
    found = find_supervisor().status()
    if as_json:
        write_json(found)
    else:
        rows = [(name, "" if value is None else str(value)) for name, value in found.items()]
        write_table(("", ""), rows, header=False)
    if not found["running"]:
        raise typer.Exit(1)


@service.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the latest lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
) -> None:
    """Show the server's log, through the system's own command."""
    command = find_supervisor().logs_command(lines, follow)
    try:
        os.execvp(command[0], command)  # which keeps the terminal, and Ctrl-C
    except OSError as error:
        raise ConfigurationError(f"`{' '.join(command)}` cannot be run: {error}") from error
