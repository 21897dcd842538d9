"""The command line `akidb-mlx`, which is also `python -m akidb_mlx`.

Results go to standard output and everything else to standard error. Exit status: 0, 1 for a failure and 2 for wrong
usage, both explained on one line of standard error; 130 after Ctrl-C and 141 where the reader of the output has left.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from akidb_mlx.cli.commands import create_app, select_commands
from akidb_mlx.cli.output import report
from akidb_mlx.cli.streams import open_streams, require_utf8
from akidb_mlx.errors import AkidbMlxError, InvalidInputError
from akidb_mlx.runtime.garbage import no_collection
from model_cache import ModelCacheError

# typer carries a copy of click, and of its errors names only this one, which is below the one of all wrong usage.
_UsageError: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and turn errors into exit statuses; without arguments, run that of this process."""
    require_utf8()
    open_streams()
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        _check_encoding(arguments)
        with no_collection():
            app = create_app(select_commands(arguments))
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
