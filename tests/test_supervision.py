"""The service that starts the server: its files as the systems read them, and the commands that they are given."""

import json
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import ConfigurationError
from akidb_mlx.supervision.launchd import Launchd, agent_plist
from akidb_mlx.supervision.supervisor import run, server_command
from akidb_mlx.supervision.systemd import Systemd, unit_text

ODD = Path('/srv/my "models" 100% $HOME/caf\u00e9/serve.toml')


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program on the path that notes its arguments, and answers what it is told to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def make(name: str, answer: str = "", status: int = 0) -> Path:
        notes, path = tmp_path / f"{name}.calls", folder / name
        path.write_text(
            f"#!/bin/sh\necho \"$@\" >> {shlex.quote(str(notes))}\ncat <<'END'\n{answer}\nEND\nexit {status}\n"
        )
        path.chmod(0o755)
        return notes

    return make


def calls(notes: Path) -> list[str]:
    return notes.read_text().splitlines()


def test_the_server_is_that_of_this_python():
    assert server_command(Path("a.toml")) == [
        *(sys.executable, "-m", "akidb_mlx", "serve", "--config"),
        str(Path.cwd() / "a.toml"),
    ]


def test_systemd_reads_the_words_of_the_command_back():
    """Its quoting is that of a shell but for specifiers and variables, of which one sign stands for two."""
    command = ["/usr/bin/python3", "--config", str(ODD)]
    line = next(line for line in unit_text(command).splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    assert [word.replace("%%", "%").replace("$$", "$") for word in words] == command
    assert "%%" in words[-1]
    assert "$$" in words[-1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("config", [Path("/srv/serve.toml"), ODD])
def test_systemd_accepts_the_unit(tmp_path, monkeypatch, config):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    unit = tmp_path / "akidb-mlx.service"
    text = unit_text([sys.executable, "--config", str(config)])

    def verify() -> str:
        done = subprocess.run(["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True)
        return "".join(line for line in done.stderr.splitlines() if unit.name in line)

    unit.write_text(text, encoding="utf-8")
    assert verify() == ""
    unit.write_text(text.replace("Restart=on-failure", "Restart=sometimes"), encoding="utf-8")
    assert "sometimes" in verify()


def test_systemd_is_told_to_start_the_unit(home, program):
    notes = program("systemctl")
    file = Systemd().install(Path("/srv/serve.toml"))
    assert file == home / ".config/systemd/user/akidb-mlx.service"
    assert '"/srv/serve.toml"' in file.read_text()
    assert calls(notes)[1:] == [
        "--user daemon-reload",
        "--user enable akidb-mlx.service",
        "--user restart akidb-mlx.service",
    ]
    assert Systemd().uninstall()
    assert calls(notes)[4:] == ["--user disable --now akidb-mlx.service", "--user daemon-reload"]
    assert not file.exists()
    assert not Systemd().uninstall()


def test_no_file_is_written_where_systemd_is_not_there(home, program):
    program("systemctl", "Failed to connect to bus", status=1)
    with pytest.raises(ConfigurationError, match="failed with status 1 and said: Failed to connect to bus"):
        Systemd().install(Path("/srv/serve.toml"))
    assert not (home / ".config").exists()


@pytest.mark.usefixtures("home")
def test_the_units_state(program):
    assert Systemd().status()["installed"] is False
    program("systemctl", "ActiveState=active\nSubState=running\nResult=success\nMainPID=4711")
    file = Systemd().install(Path("/srv/serve.toml"))
    assert Systemd().status() == {
        "file": str(file),
        "installed": True,
        "running": True,
        "pid": 4711,
        "state": "active (running), last result: success",
    }
    program("systemctl", "ActiveState=failed\nSubState=failed\nResult=exit-code\nMainPID=0")
    found = Systemd().status()
    assert (found["running"], found["pid"]) == (False, None)
    assert "exit-code" in found["state"]


def test_launchd_reads_the_agent():
    agent = plistlib.loads(agent_plist(["/usr/bin/python3", "--config", str(ODD)], Path("/tmp/a.log")))
    assert agent["ProgramArguments"] == ["/usr/bin/python3", "--config", str(ODD)]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["RunAtLoad"] is True
    assert agent["StandardOutPath"] == agent["StandardErrorPath"] == "/tmp/a.log"


def test_launchd_is_told_to_start_the_agent(home, program):
    notes = program("launchctl")
    file = Launchd().install(Path("/srv/serve.toml"))
    assert file == home / "Library/LaunchAgents/akidb-mlx.plist"
    assert (home / "Library/Logs").is_dir()
    (started,) = calls(notes)
    assert started.startswith("bootstrap gui/")
    assert started.endswith(str(file))
    Launchd().install(Path("/srv/other.toml"))
    assert [call.split()[0] for call in calls(notes)] == ["bootstrap", "bootout", "bootstrap"]
    assert plistlib.loads(file.read_bytes())["ProgramArguments"][-1] == "/srv/other.toml"
    assert Launchd().uninstall()
    assert not file.exists()
    assert not Launchd().uninstall()


@pytest.mark.usefixtures("home")
def test_the_agents_state(program):
    assert Launchd().status()["installed"] is False
    program("launchctl", "gui/501/akidb-mlx = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 815\n}")
    Launchd().install(Path("/srv/serve.toml"))
    found = Launchd().status()
    assert (found["running"], found["pid"], found["state"]) == (True, 815, "running")
    program("launchctl", "Could not find service", status=113)
    found = Launchd().status()
    assert (found["running"], found["pid"], found["state"]) == (False, None, "not loaded")


@pytest.mark.parametrize("supervisor", [Systemd(), Launchd()])
def test_the_log_is_shown_by_the_systems_command(supervisor):
    once, following = (supervisor.logs_command(7, follow) for follow in (False, True))
    assert any("7" in word for word in once)
    assert len(following) == len(once) + 1


def test_a_command_that_is_not_there():
    with pytest.raises(ConfigurationError, match="`no-such-program a` cannot be run"):
        run(["no-such-program", "a"])


@pytest.mark.usefixtures("home")
def test_the_status_of_the_command_line(program, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    shown = CliRunner().invoke(create_app(), ["service", "status", "--json"])
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["installed"] is False
    program("systemctl", "ActiveState=active\nSubState=running\nResult=success\nMainPID=4711")
    Systemd().install(Path("/srv/serve.toml"))
    shown = CliRunner().invoke(create_app(), ["service", "status", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["pid"] == 4711


def test_another_system_has_no_services(monkeypatch):
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(ConfigurationError, match="freebsd14"):
        __import__("akidb_mlx.supervision").supervision.find_supervisor()
