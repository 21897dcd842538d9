"""The commands about models on disk, in this process, against a server that plays the Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from akidb_mlx.cli.commands import create_app
from model_cache import ModelCacheError
from tests.hub import Fault
from tests.support import GOLDENS, read_to_end

TINY = GOLDENS / "tiny-bert"


@pytest.fixture
def name(hub):
    """A repository that has been pulled."""
    hub.add("org/for-cli", TINY)
    assert run("pull", "org/for-cli")[0]["error"] is None
    return "org/for-cli"


def run(*arguments, status=0):
    """Return a command's output for a machine."""
    done = CliRunner().invoke(create_app(), [*arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def shown(*arguments):
    """Return a command's output for a person."""
    done = CliRunner().invoke(create_app(), list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_here(name):
    (model,) = run("list")
    assert (model["repo_id"], model["refs"], model["pinned"], model["in_use"]) == (name, ["main"], False, False)
    assert run("show", name) == [{key: value for key, value in model.items() if key != "newer"} | {"fidelity": None}]
    assert shown("path", name).strip() == run("path", name)["path"] == model["path"]
    assert model["commit"][:12] in shown("list")
    assert "sha256" not in shown("show", name)


def test_a_catalogue_name_stands_for_its_repository(hub):
    hub.add("mlx-community/embeddinggemma-300m-4bit", GOLDENS / "tiny-gemma3-4bit")
    (pulled,) = run("pull", "gemma-300m-4bit")
    assert "mlx-community--embeddinggemma-300m-4bit" in pulled["path"]


def test_a_pipe_gets_whole_rows_separated_by_tabs(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    (model,) = run("list")
    run("pin", name)
    (row,) = shown("list").splitlines()
    assert row.split("\t")[:3] == [name, model["commit"][:12], "main"]
    assert row.split("\t")[5:] == ["pinned"]
    details = dict(line.split("\t") for line in shown("show", name).splitlines())
    assert (details["path"], details["refs"], details["licence"]) == (model["path"], "main", "-")
    run("unpin", name)
    (row,) = shown("prune", "--max-bytes", "1", "--dry-run").splitlines()
    assert row.split("\t")[0] == model["name"]
    run("rm", name)
    assert shown("list") == ""


@pytest.mark.usefixtures("name")
def test_pinned_models_stay():
    assert run("pin", "org/for-cli")[0]["pinned"]
    (refused,) = run("rm", "org/for-cli", status=1)
    assert "is pinned" in refused["error"]
    assert run("prune", "--max-bytes", "1")["removals"] == []
    run("unpin", "org/for-cli")
    planned = run("prune", "--max-bytes", "1", "--dry-run")
    assert len(run("list")) == 1
    assert run("prune", "--max-bytes", "1") == planned
    assert run("list") == []


def test_damage_is_found_and_mended(name):
    (model,) = run("list")
    weights = TINY / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    path = Path(model["path"]) / weights.name
    path.write_bytes(changed)
    assert run("verify", name, status=1) == {model["name"]: {"damaged": [weights.name], "repaired": False}}
    assert run("verify", "--repair")[model["name"]]["repaired"]
    assert path.read_bytes() == weights.read_bytes()
    assert "ok" in shown("verify")


def test_newer_commits(hub, name):
    (old,) = run("list")
    assert run("list", "--outdated") == []
    files = {file.relative_to(TINY).as_posix(): file.read_bytes() for file in TINY.rglob("*") if file.is_file()}
    new = hub.add(name, {**files, "modules.json": files["modules.json"] + b"\n"})
    assert [model["newer"] for model in run("list", "--outdated")] == [new]
    assert [(one["before"], one["now"]) for one in run("update")] == [(old["commit"], new)]
    assert run("rm", f"{name}@{old['commit']}")[0]["freed"] == old["size"]
    assert [model["commit"] for model in run("list")] == [new]


def test_one_failure_does_not_stop_the_others(name):
    good, bad, again = run("pull", name, "org/none", name, status=1)
    assert good == again
    assert "the Hub has no model org/none" in bad["error"]


def test_what_is_not_here():
    for arguments in (["show", "org/none"], ["path", "org/none"]):
        done = CliRunner().invoke(create_app(), arguments)
        assert isinstance(done.exception, ModelCacheError)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_progress_is_for_people(hub, tmp_path, terminal):
    """On a terminal a bar with the model's name and bytes; in a pipe not a word."""
    hub.add("org/tiny", TINY)
    hub.fail(Fault("/cdn/*", slow=300_000))
    environment = {**os.environ, **hub.environment(tmp_path), "TERM": "xterm", "COLUMNS": "120"}
    screen, stderr = os.openpty() if terminal else os.pipe()
    command = [sys.executable, "-m", "akidb_mlx", "pull", "org/tiny", "--json"]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    written = read_to_end(screen).decode()
    (pulled,) = json.loads(child.communicate()[0])
    assert pulled["error"] is None
    assert written == "" if not terminal else "org/tiny" in written and "kB" in written and "━" in written
    assert "\\x1b" not in written
