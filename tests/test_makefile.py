"""The Makefile's choice of an interpreter, with scripts that stand for interpreters of other versions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# It runs code as if it were another Python, makes an environment of copies of itself, and notes what it is asked for.
STAND_IN = """#!/bin/sh
case "$1 $2" in
    -c*) exec {real} -c "{disguise}; exec(sys.argv[1])" "$2" ;;
    "-m venv") rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "venv {version}" >> log ;;
    *) echo "{version} $*" >> log ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile; no package is installed on the system for it."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "tools" / "ldconfig").write_text("#!/bin/sh\necho libopenblas.so.0\n")
    (folder / "tools" / "ldconfig").chmod(0o755)
    return folder


def interpreter(folder: Path, version: str, name: str = "", system: str = "Linux", machine: str = "x86_64") -> Path:
    """A Python of that version in the folder's tools."""
    numbers = tuple(int(number) for number in version.split("."))
    disguise = (
        f"import platform, sys; sys.version_info = {numbers}; sys.version = '{version}'; "
        f"sys.base_prefix = '/opt/{version}'; platform.system = lambda: '{system}'; "
        f"platform.machine = lambda: '{machine}'"
    )
    path = folder / "tools" / (name or f"python{version}")
    path.write_text(STAND_IN.format(real=sys.executable, disguise=disguise, version=version))
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MFLAGS")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env={**environment, "PATH": f"{folder / 'tools'}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def log(folder: Path) -> list[str]:
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("version", "system", "machine", "found", "advice"),
    [
        ("3.9.6", "Darwin", "arm64", "python3 is Python 3.9 for Darwin arm64", "brew install python@3.13"),
        ("3.9.6", "Linux", "x86_64", "python3 is Python 3.9 for Linux x86_64", "apt install python3.11"),
        ("3.12.4", "Darwin", "x86_64", "python3 is Python 3.12 for Darwin x86_64", "a native one for arm64"),
    ],
)
def test_an_interpreter_that_does_not_fit_is_refused_first(clone, version, system, machine, found, advice):
    interpreter(clone, version, "python3", system, machine)
    done = make(clone, "demo")
    assert done.returncode != 0
    assert found in done.stderr
    assert advice in done.stderr
    assert "make PYTHON=python3.13 demo" in done.stderr
    assert not (clone / ".venv").exists()


def test_an_interpreter_that_is_not_there(clone):
    done = make(clone, "PYTHON=no-such-python", "demo")
    assert done.returncode != 0
    assert "no-such-python was not found: install Python 3.10 or newer" in done.stderr


def test_an_environment_of_an_interpreter_that_does_not_fit_is_made_anew(clone):
    """As an older Makefile left it behind on a Mac with the system's Python."""
    old = interpreter(clone, "3.9.6", "python3")
    (clone / ".venv/bin").mkdir(parents=True)
    shutil.copy(old, clone / ".venv/bin/python")
    interpreter(clone, "3.12.4", "python3")
    assert make(clone, "demo").returncode == 0
    assert log(clone)[0] == "venv 3.12.4"
    assert log(clone)[-1] == "3.12.4 examples/search.py"


def test_an_environment_whose_interpreter_is_gone_is_made_anew(clone):
    interpreter(clone, "3.12.4", "python3")
    assert make(clone, "demo").returncode == 0
    (clone / ".venv/bin/python").unlink()
    assert make(clone, "demo").returncode == 0
    assert log(clone).count("venv 3.12.4") == 2


def test_an_environment_is_kept_until_another_interpreter_is_named(clone):
    interpreter(clone, "3.12.4", "python3")
    interpreter(clone, "3.13.1", "python3.13")
    assert make(clone, "demo").returncode == 0
    assert log(clone)[0] == "venv 3.12.4"
    installed = len(log(clone))
    for arguments in (["demo"], ["PYTHON=python3", "demo"]):
        assert make(clone, *arguments).returncode == 0
    assert log(clone)[installed:] == ["3.12.4 examples/search.py"] * 2
    assert make(clone, "PYTHON=python3.13", "demo").returncode == 0
    assert log(clone)[installed + 2 :][0] == "venv 3.13.1"
    changed = len(log(clone))
    interpreter(clone, "3.9.6", "python3")  # is not needed any more
    assert make(clone, "demo").returncode == 0
    assert log(clone)[changed:] == ["3.13.1 examples/search.py"]


def test_the_comparison_for_a_mac_can_run_on_a_cpu(clone):
    interpreter(clone, "3.12.4", "python3")
    assert make(clone, "bench-mac", "DEVICE=cpu", "MAC_BENCH=--models minilm").returncode == 0
    assert log(clone)[-1] == "3.12.4 -m benchmarks.compare --device cpu --models minilm --json mac.json"
    assert make(clone, "bench-mac").returncode == 0
    assert log(clone)[-1] == "3.12.4 -m benchmarks.compare --device gpu --models minilm,qwen3 --json mac.json"
