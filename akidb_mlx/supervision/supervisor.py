"""The interface of what starts services, and the way that its commands are run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from typing_extensions import TypedDict

from akidb_mlx.errors import ConfigurationError

# Seconds that the system gives the server to stop: longer than the server gives the requests that run then, unless its
# configuration says more.
STOP_S = 90
# Seconds that a command of the system may take.
_PATIENCE_S = 60
_LONGEST_SHOWN = 300


class ServiceStatus(TypedDict):
    """The state of the installed service.

    Attributes:
        file: the file that describes it to the system, whether or not it is there.
        installed: whether that file is there.
        running: whether its process runs.
        pid: the process, if it runs.
        state: the state in the system's own words; "" where it is not installed.
    """

    file: str
    installed: bool
    running: bool
    pid: int | None
    state: str


class Supervisor(Protocol):
    """Starts a server with the user's session, and again when it fails."""

    def install(self, config: Path) -> Path:
        """Write the service's file, start the service, and return the file. A service that is there is replaced.

        Args:
            config: the server's configuration file.

        Raises:
            ConfigurationError: the system refuses it.
            OSError: the file cannot be written.
        """
        ...

    def uninstall(self) -> bool:
        """Stop the service and remove its file; return whether there was one."""
        ...

    def status(self) -> ServiceStatus:
        """Return the service's state."""
        ...

    def logs_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that shows the service's log.

        Args:
            lines: how many of the latest lines.
            follow: whether to go on with new ones.
        """
        ...


def server_command(config: Path) -> list[str]:
    """Return the command of the server: this Python's, since a service does not see the shell's environment."""
    return [sys.executable, "-m", "akidb_mlx", "serve", "--config", str(config.absolute())]


def run(command: Sequence[str], *, check: bool = True) -> str:
    """Run a command of the system, and return what it wrote.

    Raises:
        ConfigurationError: the command is not there, does not end or, where that is checked, fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"`{' '.join(command)}` cannot be run: {error}") from error
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[:_LONGEST_SHOWN] or "nothing"
        raise ConfigurationError(f"`{' '.join(command)}` failed with status {done.returncode} and said: {said}")
    return done.stdout
