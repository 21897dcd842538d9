"""Servers that start with the user's session: a launchd agent on macOS, a systemd user unit on Linux."""

from __future__ import annotations

import sys

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.supervision.supervisor import ServiceStatus, Supervisor

__all__ = ["ServiceStatus", "Supervisor", "find_supervisor"]


def find_supervisor() -> Supervisor:
    """Return what starts services on this system.

    Raises:
        ConfigurationError: this system has neither launchd nor systemd.
    """
    if sys.platform == "darwin":
        from akidb_mlx.supervision.launchd import Launchd

        return Launchd()
    if sys.platform.startswith("linux"):
        from akidb_mlx.supervision.systemd import Systemd

        return Systemd()
    raise ConfigurationError(f"services are installed on macOS and Linux only, and this is {sys.platform}")
