"""A user unit of systemd: systemd.service(5), and the quoting of its commands in systemd.syntax(7)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from akidb_mlx.supervision.supervisor import STOP_S, ServiceStatus, run, server_command

_UNIT = "akidb-mlx.service"


class Systemd:
    """The user's own instance of systemd."""

    def install(self, config: Path) -> Path:
        """Write the unit, and enable and start it; see `Supervisor`. It is restarted if it was there."""
        file = _unit_file()
        run(["systemctl", "--user", "show-environment"])  # before a file is written that nothing would read
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(unit_text(server_command(config)), encoding="utf-8")
        run(["systemctl", "--user", "daemon-reload"])
        run(["systemctl", "--user", "enable", _UNIT])
        run(["systemctl", "--user", "restart", _UNIT])
        return file

    def uninstall(self) -> bool:
        """Stop and disable the unit, and remove its file; see `Supervisor`."""
        file = _unit_file()
        if not file.is_file():
            return False
        run(["systemctl", "--user", "disable", "--now", _UNIT])
        file.unlink()
        run(["systemctl", "--user", "daemon-reload"])
        return True

    def status(self) -> ServiceStatus:
        """Return the unit's state; see `Supervisor`."""
        file = _unit_file()
        if not file.is_file():
            return ServiceStatus(file=str(file), installed=False, running=False, pid=None, state="")
        shown = run(["systemctl", "--user", "show", _UNIT, "--property=ActiveState,SubState,Result,MainPID"])
        found = dict(line.partition("=")[::2] for line in shown.splitlines())
        pid = int(found.get("MainPID") or 0)
        return ServiceStatus(
            file=str(file),
            installed=True,
            running=pid > 0,
            pid=pid or None,
            state=f"{found.get('ActiveState')} ({found.get('SubState')}), last result: {found.get('Result')}",
        )

    def logs_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that shows the unit's part of the journal; see `Supervisor`."""
        command = ["journalctl", "--user", f"--unit={_UNIT}", f"--lines={lines}", "--no-pager"]
        return [*command, "--follow"] if follow else command


def unit_text(command: Sequence[str]) -> str:
    """Return the unit that runs a command."""
    return f"""[Unit]
Description=Text embeddings over HTTP (akidb-mlx)
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
ExecStart={" ".join(map(_quote, command))}
Restart=on-failure
RestartSec=2
TimeoutStopSec={STOP_S}

[Install]
WantedBy=default.target
"""


def _quote(word: str) -> str:
    """Quote a word of a command, in which systemd would replace specifiers (%) and variables ($)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _unit_file() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".config"
    return base / "systemd" / "user" / _UNIT
