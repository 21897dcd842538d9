"""An agent of launchd: launchd.plist(5) and launchctl(1)."""

from __future__ import annotations

import os
import plistlib
import re
from collections.abc import Sequence
from pathlib import Path

from akidb_mlx.supervision.supervisor import STOP_S, ServiceStatus, run, server_command

_LABEL = "akidb-mlx"


class Launchd:
    """The user's own agents, which start when the user logs in."""

    def install(self, config: Path) -> Path:
        """Write the agent, and load it into the user's session; see `Supervisor`."""
        file, log = _agent_file(), _log_file()
        for path in (file, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            run(["launchctl", "bootout", _target()], check=False)  # it may not be loaded
        file.write_bytes(agent_plist(server_command(config), log))
        run(["launchctl", "bootstrap", _domain(), str(file)])
        return file

    def uninstall(self) -> bool:
        """Stop the agent, and remove its file; see `Supervisor`. Its log stays."""
        file = _agent_file()
        if not file.is_file():
            return False
        run(["launchctl", "bootout", _target()], check=False)  # it may not be loaded
        file.unlink()
        return True

    def status(self) -> ServiceStatus:
        """Return the agent's state; see `Supervisor`."""
        file = _agent_file()
        if not file.is_file():
            return ServiceStatus(file=str(file), installed=False, running=False, pid=None, state="")
        shown = run(["launchctl", "print", _target()], check=False)
        state, pid = (re.search(rf"^\s*{name} = (.+)$", shown, re.MULTILINE) for name in ("state", "pid"))
        return ServiceStatus(
            file=str(file),
            installed=True,
            running=pid is not None,
            pid=int(pid[1]) if pid else None,
            state=state[1] if state else "not loaded",
        )

    def logs_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that shows the agent's log; see `Supervisor`."""
        command = ["tail", "-n", str(lines), str(_log_file())]
        return [*command[:1], "-F", *command[1:]] if follow else command


def agent_plist(command: Sequence[str], log: Path) -> bytes:
    """Return the property list of an agent that runs a command.

    Args:
        command: the words of it.
        log: the file for all that it writes.
    """
    return plistlib.dumps(
        {
            "Label": _LABEL,
            "ProgramArguments": list(command),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": STOP_S,
            # As an interactive program, whose work the system does not slow down.
            "ProcessType": "Interactive",
            "StandardOutPath": str(log),
            "StandardErrorPath": str(log),
        }
    )


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _target() -> str:
    return f"{_domain()}/{_LABEL}"


def _agent_file() -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"


def _log_file() -> Path:
    return Path.home() / "Library" / "Logs" / "akidb-mlx.log"
